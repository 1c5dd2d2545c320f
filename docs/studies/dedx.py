"""Cuts in n-sigma of dE/dx against momentum: quoted efficiencies and the truth.

    python docs/studies/dedx.py k.onnx pi.onnx -o FOLDER

The bundles are made as in docs/how-to/simulation/time-projection-chamber.md.
Tracks with the momenta of protons, mostly in busy events, get the response of kaons and
pions. The quoted efficiency and misID are compared with the simulated truth for the
same tracks. The script writes the figure `dedx.png` and prints the table of that page.
"""

import argparse
from pathlib import Path

import numpy as np

import pidgan
from pidgan.files.tables import write_trees
from pidgan.report.plots import png
from pidgan.report.plots.canvas import CORRECTED, REAL, ratio_panels, set_limits, style
from pidgan.sample.cuts import parse_cut
from pidgan.simulation import simulate_tpc, simulate_tpc_response

CUTS = [
    "abs(TPC_NSigmak) < 1",
    "abs(TPC_NSigmak) < 2",
    "abs(TPC_NSigmak) < 3",
    "TPC_NSigmak > 0",
]
DRAWN = "abs(TPC_NSigmak) < 2"
EDGES = [300, 420, 500, 600, 750, 1000, 1500, 2500, 5000, 20000]
DRAWS = 10
"""Number of draws of the true response of each track."""


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs=2)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    tracks = _tracks()
    curves = []
    for path in arguments.bundles:
        species = pidgan.open_bundle(path).card.species
        truth = _truth(species, tracks)
        whole, bins = _quoted(path, tracks, arguments.output)
        for row in whole:
            syst = np.sqrt(sum(v**2 for v in row.syst.values()))
            print(
                f"| {species} | {row.cut} | {100 * row.value:.2f} ± "
                f"{100 * row.stat:.2f} ± {100 * syst:.2f} | "
                f"{100 * truth[row.cut].mean():.2f} |"
            )
        place = np.digitize(tracks["probe_P"], EDGES) - 1
        true = {
            cut: np.array([passed[:, place == i].mean() for i in range(len(EDGES) - 1)])
            for cut, passed in truth.items()
        }
        pulls = [
            (row.value - true[row.cut][EDGES.index(row.bin["h_P"][0])]) / row.total
            for row in bins
        ]
        print(
            f"{species}: {len(pulls)} bins, rms of the pulls "
            f"{np.sqrt(np.mean(np.square(pulls))):.2f}, largest "
            f"{np.max(np.abs(pulls)):.2f}"
        )
        drawn = [row for row in bins if row.cut == DRAWN]
        values = np.array([[row.value, row.stat, row.total] for row in drawn])
        curves.append((species, values, true[DRAWN]))
    (arguments.output / "dedx.png").write_bytes(png(_figure(curves)))


def _tracks():
    """Return tracks of protons; busy events are more frequent."""
    tracks = simulate_tpc("p", 60_000, seed=77)["TPC/DecayTree"]
    chosen = np.random.default_rng(3).random(60_000) < 0.2 + 0.8 * (
        tracks["nTracks"] / 10_000
    )
    return {name: column[chosen] for name, column in tracks.items()}


def _truth(species, tracks):
    """Return which tracks pass each cut, (DRAWS, n)."""
    conditions = [
        tracks[name]
        for name in ("probe_P", "probe_ETA", "probe_TPC_nClusters", "nTracks")
    ]
    draws = [
        simulate_tpc_response(species, *conditions, seed=1000 + k) for k in range(DRAWS)
    ]
    return {
        cut: np.stack([parse_cut(cut, names=draw).passes(draw) for draw in draws])
        for cut in CUTS
    }


def _quoted(path, tracks, folder):
    """Return the quoted efficiencies of all tracks and in bins of momentum."""
    found = pidgan.run_systematics(pidgan.open_bundle(path), cuts=CUTS, seed=1)
    renamed = {name.replace("probe_", "h_"): v for name, v in tracks.items()}
    names = ("h_P", "h_PT", "h_ETA", "h_TPC_nClusters", "nTracks")
    tree = {name: renamed[name] for name in names}
    write_trees(folder / "tracks.root", {"T": tree}, overwrite=True)
    output = folder / f"{path.stem}.root"
    pidgan.apply({"h": path}, [folder / "tracks.root"], output, seed=5, overwrite=True)
    return [
        list(pidgan.pid_efficiency({"h": found}, output, cuts=CUTS, binning=bins))
        for bins in (None, {"h_P": EDGES})
    ]


def _figure(curves):
    """Draw efficiency and misID, with pulls below."""
    edges = np.array(EDGES) / 1e3
    centre = np.sqrt(edges[1:] * edges[:-1])
    half = np.stack([centre - edges[:-1], edges[1:] - centre])
    with style():
        figure, panels = ratio_panels(len(curves))
        for (species, values, true), (top, bottom) in zip(curves, panels, strict=True):
            value, stat, total = values.T
            for error, alpha, label in (
                (total, 0.25, "quoted ± total"),
                (stat, 0.35, "± statistical alone"),
            ):
                band = [np.append(v, v[-1]) for v in (value - error, value + error)]
                top.fill_between(
                    edges, *band, step="post", color=CORRECTED, alpha=alpha, lw=0,
                    label=label,
                )  # fmt: skip
            top.stairs(value, edges, color=CORRECTED, baseline=None)
            top.errorbar(centre, true, xerr=half, fmt="o", color=REAL, label="truth")
            kind = "Efficiency" if species.startswith("K") else "MisID"
            top.set_ylabel(f"{kind} of {species}")
            top.set_title("$|n_K| < 2$", loc="left")
            set_limits(top, np.concatenate([value - total, value + total]), room=0.5)
            top.legend(loc="upper right")
            pull = (value - true) / total
            bottom.axhspan(-1.0, 1.0, color="0.9", lw=0)
            bottom.axhline(0.0, color=REAL, linewidth=0.8)
            bottom.errorbar(centre, pull, xerr=half, fmt="o", color=CORRECTED)
            bottom.set_ylim(-3.0, 3.0)
            bottom.set_yticks([-2.0, 0.0, 2.0])
            bottom.set_ylabel("pull")
            bottom.set_xscale("log")
            bottom.set_xlim(edges[0], edges[-1])
            bottom.set_xlabel("$p$ [GeV]")
    return figure


if __name__ == "__main__":
    main()
