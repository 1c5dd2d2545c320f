"""Simulated kaons from calibration to efficiency, in about a minute.

    python examples/simulated_kaons.py -o kaons

The training is far too short for physics. `pidgan demo` trains longer and compares the
result with the truth.
"""

import argparse
from pathlib import Path

import pidgan
from pidgan.files.tables import write_trees
from pidgan.simulation import ANALYSIS_TREE, simulate_analysis, simulate_calibration

CUTS = ["RichDLLk > 0", "RichDLLk > 5"]


def main() -> None:
    """Run the chain in a directory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("kaons"))
    parser.add_argument("--budget", default="20s", help="training time")
    parser.add_argument("-n", type=int, default=50_000, help="calibration tracks")
    arguments = parser.parse_args()
    work: Path = arguments.output
    work.mkdir(parents=True)

    write_trees(work / "calib.root", simulate_calibration("dstar_k", arguments.n))
    analysis = {ANALYSIS_TREE: simulate_analysis(10_000, seed=2)}
    write_trees(work / "d2kpi.root", analysis)

    dataset = pidgan.build_dataset("sim_dstar_k", [work / "calib.root"])
    model = pidgan.train(dataset, budget=arguments.budget)
    pidgan.export_bundle(model, work / "kaon.onnx")

    pidgan.apply(
        {"Kplus": work / "kaon.onnx"},
        work / "d2kpi.root",
        work / "d2kpi-pid.root",
        mode="replace",
    )
    found = pidgan.run_systematics(pidgan.open_bundle(work / "kaon.onnx"), cuts=CUTS)
    efficiency = pidgan.pid_efficiency(
        {"Kplus": found},
        work / "d2kpi-pid.root",
        cuts=CUTS,
        species_from="TRUEID",
    )
    print(efficiency.text())


if __name__ == "__main__":
    main()
