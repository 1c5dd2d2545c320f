"""Real LHCb Run 3 protons: train, validate, export, apply, and an efficiency.

The data are 92,486 sWeighted protons of Lambda_c+ -> p K- pi+. The package `pidcalib2`
has them among its tests, and the extra `examples` installs it. Run the example with

    pip install ".[train,examples]" && python examples/lhcb_run3_protons.py

Nothing of that package is imported: its file is found, unpickled and written to
Parquet once. Unpickling can run code of the author of the file. It is therefore done
only here, for a file that came with an installed package.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import pandas as pd

import pidgan
from pidgan.files.tables import read_table, write_table

DATA = "tests/test_data/cal_test_data_run3_lc.pkl"
CUTS = ["DLLp > 0", "DLLp > 5", "DLLp > 20"]


def find_protons() -> Path:
    """Return the file with the protons, without importing its package."""
    spec = importlib.util.find_spec("pidcalib2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit('pidcalib2 is not installed: pip install ".[examples]"')
    return Path(spec.submodule_search_locations[0]) / DATA


def main() -> None:
    """Run the chain in a directory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("run3-protons"))
    parser.add_argument("--budget", default="210s", help="training time")
    parser.add_argument("--data", type=Path, help="Parquet file to use instead")
    arguments = parser.parse_args()
    work: Path = arguments.output
    work.mkdir(parents=True, exist_ok=True)

    protons = arguments.data or work / "protons.parquet"
    if not protons.exists():
        write_table(protons, pd.read_pickle(find_protons()).reset_index(drop=True))

    # calibration/run3_lambdac_p.toml says which column is which variable.
    dataset = pidgan.build_dataset("run3_lambdac_p", [protons], seed=1)
    model = pidgan.train(dataset, budget=arguments.budget, seed=1)
    report = pidgan.validate(model, dataset, cuts=CUTS)
    print(report.summary())
    report.save(work / "report", overwrite=True)
    pidgan.export_bundle(model, work / "proton.onnx", report=report, overwrite=True)

    # An analysis ntuple has its own names. Here it has the same tracks, as "proton".
    analysis = work / "analysis.parquet"
    tracks = read_table(protons)[["P", "ETA", "nLongTracks", "sWeight"]]
    names = {"P": "proton_P", "ETA": "proton_ETA"}
    write_table(analysis, tracks.rename(columns=names), overwrite=True)
    output = work / "analysis-pid.parquet"
    bundle = pidgan.open_bundle(work / "proton.onnx")
    print(pidgan.apply({"proton": bundle}, analysis, output, overwrite=True).text())
    found = pidgan.run_systematics(bundle, cuts=CUTS)
    found.save(work / "proton-map.json", overwrite=True)
    efficiency = pidgan.pid_efficiency(
        {"proton": found}, output, cuts=CUTS, weights="sWeight"
    )
    print(efficiency.text())


if __name__ == "__main__":
    main()
