"""Figure and table of docs/explanation/simulation: simulated RICH against LHCb.

    python docs/plots/simulation_tuning.py

The script draws efficiency and misID of the combined PIDK of simulated calibration
tracks beside the values of LHCb's 2018 calibration tables. It writes
`docs/explanation/simulation_tuning.png` and `simulation_tuning.inc`.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pidgan.simulation import simulate_calibration

N_TRACKS = 400_000
SEED = 20_250_301
FOLDER = Path(__file__).resolve().parents[1] / "explanation"

# LHCb 2018 (Turbo18) calibration tables, as distributed with PIDCalib: momentum bin in
# GeV, kaon efficiency and pion misID of DLLK > 0.
REAL_P = (
    ((3.0, 9.3), 0.971, 0.058),
    ((9.3, 15.6), 0.989, 0.046),
    ((19.0, 24.4), 0.992, 0.016),
    ((46.0, 51.4), 0.957, 0.084),
    ((73.0, 78.4), 0.870, 0.195),
    ((94.6, 100.0), 0.792, 0.339),
)
# The same tables: tracks of the event, kaon efficiency of DLLK > 4.
REAL_OCCUPANCY = (((0, 50), 0.915), ((50, 200), 0.895))
# Tracks over all momenta: kaon efficiency and pion misID of DLLK > 0.
REAL_ALL = (0.963, 0.0675)

P_EDGES = np.geomspace(3.0, 100.0, 29)
OCCUPANCY_EDGES = np.array([0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500.0])
MAX_DIFFERENCE = 0.03
MAX_RATIO = 1.5


def simulate(mode: str) -> dict[str, np.ndarray]:
    """Return momentum (GeV), occupancy and PIDK of the signal tracks of a mode."""
    trees = simulate_calibration(mode, N_TRACKS, seed=SEED).values()
    columns = {}
    for name in ("probe_P", "nTracks", "probe_PIDK", "probe_TRUE_SIGNAL"):
        columns[name] = np.concatenate([tree[name] for tree in trees])
    signal = columns["probe_TRUE_SIGNAL"] == 1
    return {
        "P": columns["probe_P"][signal] / 1e3,
        "nTracks": columns["nTracks"][signal],
        "PIDK": columns["probe_PIDK"][signal],
    }


def rate(passed: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Return the share that passes and its binomial error."""
    n = int(inside.sum())
    if n == 0:
        return np.nan, np.nan
    share = float(passed[inside].mean())
    return share, float(np.sqrt(max(share * (1 - share), 1 / n) / n))


def rates_in(values: np.ndarray, passed: np.ndarray, bins: Any) -> np.ndarray:
    """Return (2, n_bins): shares and errors in bins given as pairs."""
    found = [rate(passed, (values >= low) & (values < high)) for low, high in bins]
    return np.array(found).T


def pairs(edges: np.ndarray) -> list[tuple[float, float]]:
    """Return consecutive edges as bins."""
    return list(itertools.pairwise(edges))


def draw(kaons: dict[str, Any], pions: dict[str, Any]) -> Figure:
    """Return the figure: three pairs of panels."""
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    axes = figure.subplots(
        2, 3, sharex="col", gridspec_kw={"height_ratios": [2.6, 1], "hspace": 0.03}
    )
    bins = [entry[0] for entry in REAL_P]
    above_zero = [sample["PIDK"] > 0 for sample in (kaons, pions)]
    _panel(
        axes[:, 0],
        edges=P_EDGES,
        fine=rates_in(kaons["P"], above_zero[0], pairs(P_EDGES)),
        bins=bins,
        real=np.array([entry[1] for entry in REAL_P]),
        same=rates_in(kaons["P"], above_zero[0], bins),
        limit=MAX_DIFFERENCE,
    )
    axes[0, 0].set(ylabel="kaon efficiency, PIDK > 0", ylim=(0.7, 1.02), xscale="log")
    _panel(
        axes[:, 1],
        edges=P_EDGES,
        fine=rates_in(pions["P"], above_zero[1], pairs(P_EDGES)),
        bins=bins,
        real=np.array([entry[2] for entry in REAL_P]),
        same=rates_in(pions["P"], above_zero[1], bins),
        limit=None,
    )
    axes[0, 1].set(
        ylabel=r"$\pi \to K$ misID, PIDK > 0",
        xscale="log",
        yscale="log",
        ylim=(8e-3, 0.7),
    )
    above_four = kaons["PIDK"] > 4
    bins = [entry[0] for entry in REAL_OCCUPANCY]
    _panel(
        axes[:, 2],
        edges=OCCUPANCY_EDGES,
        fine=rates_in(kaons["nTracks"], above_four, pairs(OCCUPANCY_EDGES)),
        bins=bins,
        real=np.array([entry[1] for entry in REAL_OCCUPANCY]),
        same=rates_in(kaons["nTracks"], above_four, bins),
        limit=MAX_DIFFERENCE,
    )
    axes[0, 2].set(ylabel="kaon efficiency, PIDK > 4", ylim=(0.7, 1.02))
    axes[1, 2].set(xlabel="tracks of the event", xlim=(0, 500))
    for axis in axes[1, :2]:
        axis.set(xlabel="momentum [GeV]", xlim=(2.8, 112))
        axis.set_xticks([3, 5, 10, 20, 50, 100], ["3", "5", "10", "20", "50", "100"])
        axis.tick_params(which="minor", bottom=False, top=False)
    for axis in axes[0, :2]:
        axis.tick_params(which="minor", axis="x", bottom=False, top=False)
    axes[0, 0].legend(loc="lower left", frameon=False)
    return figure


def _panel(
    axes: Any,
    *,
    edges: np.ndarray,
    fine: np.ndarray,
    bins: list[tuple[float, float]],
    real: np.ndarray,
    same: np.ndarray,
    limit: float | None,
) -> None:
    """Draw simulation and real values, and below their difference or ratio."""
    upper, lower = axes
    upper.stairs(fine[0], edges, baseline=None, color="C0", label="simulation")
    upper.stairs(
        fine[0] + fine[1],
        edges,
        baseline=fine[0] - fine[1],
        fill=True,
        color="C0",
        alpha=0.3,
    )
    low, high = np.array(bins, dtype=float).T
    # A logarithmic axis gets points in the logarithmic middle of their bins.
    centre = np.sqrt(low * high) if low.min() > 0 else (low + high) / 2
    across = np.array([centre - low, high - centre])
    style = {"fmt": "o", "color": "black", "markersize": 4, "linewidth": 1}
    upper.errorbar(centre, real, xerr=across, label="LHCb 2018 (Turbo18)", **style)
    style["color"] = "C0"
    if limit is not None:
        lower.axhspan(-100 * limit, 100 * limit, color="0.9")
        lower.axhline(0, color="black", linewidth=0.8)
        difference, error = 100 * (same[0] - real), 100 * same[1]
        lower.errorbar(centre, difference, error, across, **style)
        lower.set(ylabel="sim. - LHCb [%]", ylim=(-4.5, 4.5))
    else:
        lower.axhspan(1 / MAX_RATIO, MAX_RATIO, color="0.9")
        lower.axhline(1, color="black", linewidth=0.8)
        lower.errorbar(centre, same[0] / real, same[1] / real, across, **style)
        lower.set(ylabel="sim. / LHCb", ylim=(0.5, 1.75))
    upper.tick_params(which="both", direction="in", top=True, right=True)
    lower.tick_params(which="both", direction="in", top=True, right=True)


def table(kaons: dict[str, Any], pions: dict[str, Any]) -> str:
    """Return the numbers of the figure as a Markdown table."""
    lines = [
        "| tracks | quantity | LHCb 2018 [%] | simulation [%] |",
        "|---|---|---:|---:|",
    ]

    def add(tracks: str, quantity: str, real: float, found: Any) -> None:
        value, error = 100 * found[0], 100 * found[1]
        digits = 1 if error >= 0.1 else 2
        lines.append(
            f"| {tracks} | {quantity} | {100 * real:.3g} | "
            f"{value:.{digits}f} ± {error:.{digits}f} |"
        )

    names = ("$\\epsilon_K$(PIDK > 0)", "$\\pi\\to K$(PIDK > 0)")
    for column, (name, sample) in enumerate(zip(names, (kaons, pions), strict=True)):
        passed = sample["PIDK"] > 0
        for bin_, *real in REAL_P:
            found = rates_in(sample["P"], passed, [bin_])[:, 0]
            add(f"{bin_[0]:g}-{bin_[1]:g} GeV", name, real[column], found)
        everything = np.ones(len(passed), dtype=bool)
        add("all momenta", name, REAL_ALL[column], rate(passed, everything))
    for bin_, real_value in REAL_OCCUPANCY:
        found = rates_in(kaons["nTracks"], kaons["PIDK"] > 4, [bin_])[:, 0]
        add(
            f"{bin_[0]}-{bin_[1]} tracks in the event",
            "$\\epsilon_K$(PIDK > 4)",
            real_value,
            found,
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the figure and the table."""
    kaons, pions = simulate("dstar_k"), simulate("dstar_pi")
    draw(kaons, pions).savefig(FOLDER / "simulation_tuning.png", dpi=110)
    (FOLDER / "simulation_tuning.inc").write_text(table(kaons, pions), encoding="utf-8")


if __name__ == "__main__":
    main()
