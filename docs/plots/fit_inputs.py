"""Picture of the page "Carry the uncertainty into a fit", from the files of a demo.

    pidgan demo -o demo && python docs/plots/fit_inputs.py demo

It shows the efficiency of the demo's analysis in bins of momentum, how much each
independent uncertainty moves it, and the correlation of the bins.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import pidgan

PICTURE = Path(__file__).resolve().parents[1] / "how-to/efficiency/into-a-fit.png"
CUT = "RichDLLk > 0"
EDGES = [3e3, 1e4, 1.5e4, 2e4, 2.5e4, 3e4, 4e4, 5e4, 7e4, 1e5]
SHOWN = 4


def modifiers_of(workspace: dict[str, object]) -> dict[str, np.ndarray]:
    """Return the shift up of the yields (n_bins,) by the name of a modifier."""
    (sample,) = workspace["channels"][0]["samples"]
    nominal = np.array(sample["data"])
    found = {}
    for one in sample["modifiers"]:
        data = one["data"]
        if one["type"] == "histosys":
            found[one["name"]] = np.array(data["hi_data"]) - nominal
    return found


def main(demo: Path) -> None:
    """Write the picture."""
    ntuple, known = demo / "analysis-pid.root", demo / "kaon-map.json"
    bins = {"Kplus_P": EDGES}
    found = pidgan.pid_efficiency({"Kplus": known}, ntuple, cuts=CUT, binning=bins)
    workspace = pidgan.fit_workspace(found)
    yields = np.array(workspace["channels"][0]["samples"][0]["data"])
    value = np.array([one.value for one in found])
    total = np.array([one.total for one in found])
    shifts = {n: s / yields * value for n, s in modifiers_of(workspace).items()}
    largest = sorted(shifts, key=lambda n: -float(np.abs(shifts[n]).sum()))[:SHOWN]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    edges, centres = np.array(EDGES) / 1e3, np.convolve(EDGES, [5e-4, 5e-4], "valid")
    width = np.diff(edges) / 2
    left.errorbar(centres, 100 * value, 100 * total, width, fmt=".", color="black")
    left.set(xlabel="momentum of the kaon [GeV]", ylabel=f"efficiency of {CUT} [%]")
    for name in largest:
        middle.stairs(100 * shifts[name], edges, baseline=None, label=name)
    middle.axhline(0, color="0.6", lw=0.8)
    middle.set(xlabel="momentum of the kaon [GeV]", ylabel="shift up [%]")
    middle.set_ylim(bottom=-1.6 * max(np.abs(shifts[n]).max() for n in largest) * 100)
    middle.legend(fontsize=7, loc="lower left")
    covariance = sum(np.outer(s, s) for s in shifts.values())
    spread = np.sqrt(np.diag(covariance))
    n = np.arange(len(EDGES))
    image = right.pcolormesh(
        n, n, covariance / np.outer(spread, spread), vmin=-1, vmax=1, cmap="RdBu_r"
    )
    figure.colorbar(image, label="correlation")
    right.set(xlabel="bin of momentum", ylabel="bin of momentum")
    figure.savefig(PICTURE, dpi=110)
    print(
        f"{PICTURE}: {len(shifts)} modifiers, covariance of the totals reproduced to "
        f"{np.abs(spread / total - 1).max():.2%}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
