"""Smoothed maps beside the irregular bins of PIDCalib2, on the same toys.

    python docs/studies/binnings.py -o FOLDER [--experiments 1000] [--minutes 60]

This needs PIDCalib2 (`pip install pidcalib2`, version 1.5.9 or later), whose
`optbinscheme` chooses irregular bins and gives each a statistical error and a
systematic one, the spread over other bins that the data allow. Its optimiser is called
as it calls it, with a regular fine grid. The response is that of `coverage_fits.py`.
Each pseudo-experiment has its own calibration sample with background and sWeights, a
cut, and an analysis with other kinematics, whose efficiency and whose efficiencies in
four bins of momentum are quoted in these ways:

- `map`: an imperfect generator with its efficiency map, the total uncertainty;
- `map, bins alone`: efficiencies of the bins of this map, without generated columns, as
  `--columns` gives them;
- `optbinscheme`: efficiencies of the irregular bins, statistical and systematic errors
  of different bins independent;
- `optbinscheme, together`: the same, systematic errors of all bins in one direction;
- `optbinscheme, statistics`: the same without systematic errors;
- `regular bins`: efficiencies in the bins of the map, as in a table, without smoothing,
  and their statistical errors.

All have the statistical error of the analysis. What is found is kept in FOLDER, and
another call goes on from there. The script writes `docs/explanation/binnings.inc`.
"""

import argparse
import logging
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logzero
import numpy as np
import pandas as pd
from coverage_fits import (
    CUTS,
    DISTORTIONS,
    EDGES,
    EXPLANATION,
    THRESHOLDS,
    Response,
    draw_conditions,
    draw_reference,
    make_map,
    numbers,
    take_cuts,
)
from pidcalib2.optimization_core import optimize_hist_binning

from pidgan.efficiency.analysis_rows import Rows, TrackRows
from pidgan.efficiency.binning import bin_index
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.filling import offsets_of, slopes_of
from pidgan.efficiency.pid_efficiency import combine
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.efficiency.selections import Selection

GRID = {"P": (3.0, 100.0, 24), "ETA": (1.5, 5.0, 7), "nTracks": (0.0, 800.0, 8)}
"""Fine grid of `optbinscheme`: lowest and highest value, and number of bins."""

REFERENCE_ROWS = (5_000, 20_000, 60_000)
ANALYSIS_ROWS = 20_000
MOMENTUM_BINS = 4


def irregular_bins(rows: ComparedRows) -> list[dict[str, Any]]:
    """Return the bins of PIDCalib2's optbinscheme for the only cut of the rows."""
    x = np.stack([rows.columns[name] for name in GRID], axis=1)
    edges = [np.linspace(low, high, n + 1) for low, high, n in GRID.values()]
    w, passed = rows.weights, rows.real[0]

    def filled(chosen: Any, weights: np.ndarray) -> np.ndarray:
        return np.histogramdd(x[chosen], bins=edges, weights=weights[chosen])[0]

    histograms = [filled(c, v) for c in (passed, slice(None)) for v in (w, w**2)]
    return list(optimize_hist_binning(*histograms, edges)["bins"])


def place_irregular(x: np.ndarray, found: list[dict[str, Any]]) -> np.ndarray:
    """Return the number of the box of each row (3, n), -1 for none."""
    place = np.full(x.shape[1], -1)
    for number, one in enumerate(found):
        low, high = np.array(one["box"]).T[:, :, np.newaxis]
        place[((x >= low) & (x < high)).all(axis=0)] = number
    return place


def from_bins(
    place: np.ndarray, value: np.ndarray, stat: np.ndarray, syst: np.ndarray
) -> Iterator[tuple[str, float, float]]:
    """Yield efficiency and error of rows with the efficiencies of their bins."""
    known = (place >= 0) & np.isfinite(value)[place]
    n = np.count_nonzero(known)
    f = np.bincount(place[known], minlength=len(value)) / n
    use = f > 0
    f, value, stat, syst = f[use], value[use], stat[use], syst[use]
    mean = f @ value
    own = f @ (value - mean) ** 2 / n + f**2 @ stat**2
    yield ", statistics", mean, math.sqrt(own)
    yield "", mean, math.sqrt(own + f**2 @ syst**2)
    yield ", together", mean, math.sqrt(own + (f @ syst) ** 2)


def from_map(
    found: EfficiencyMap,
    columns: dict[str, np.ndarray],
    place: np.ndarray,
    passed: np.ndarray,
) -> Iterator[tuple[str, float, float]]:
    """Yield efficiency and error of rows with a map, and with its bins alone."""
    n = len(place)
    rows = Rows(
        tracks={"t": TrackRows(place=place, passed={0: passed})},
        weights=np.ones(n),
        cell=np.zeros(n, dtype=np.int64),
    )
    selection = Selection(text=found.cuts[0], cuts={"t": 0})
    (one,) = combine([selection], rows, {"t": found})
    yield "map", one.value, one.total
    nominal = found.nominal[0]
    f = np.bincount(place, minlength=len(nominal)) / n
    mean = float(f @ nominal)
    own = f @ (nominal - mean) ** 2 / n
    syst = sum(v**2 for k, v in numbers(one).items() if k in one.syst)
    # The mean of the columns PIDCalibEff_filling, minus that of PIDCalibEff.
    offsets = offsets_of(found, columns, place)
    syst += (slopes_of(found, 0)[:, place] * offsets).sum(axis=0).mean() ** 2
    yield "map, bins alone", mean, math.sqrt(own + syst)


def raw_bins(rows: ComparedRows, edges: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return efficiencies of regular bins with the errors of PIDCalib, (n_bins,)."""
    table, _ = rows.tables(edges, variance="pidcalib")
    return table.efficiency[0].reshape(-1), np.sqrt(table.variance[0].reshape(-1))


def experiment(number: int, *, seed: int) -> Iterator[dict[str, Any]]:
    """Yield what is quoted in a pseudo-experiment, and the truth."""
    rng = np.random.default_rng([seed, number, 6])
    truth = Response()
    wrong = Response(kind=str(rng.choice(DISTORTIONS)), size=float(rng.normal()))
    n_reference, cut = int(rng.choice(REFERENCE_ROWS)), int(rng.integers(len(CUTS)))
    rows = draw_reference(truth, wrong, n_reference, size=1.0, rng=rng)
    rows = take_cuts(rows, [cut])
    found = make_map(rows, wrong, EDGES)
    boxes = irregular_bins(rows)
    names = ("efficiency", "statistical_uncertainty", "systematic_uncertainty")
    irregular = [np.array([one[name] for one in boxes], dtype=float) for name in names]
    value, stat = raw_bins(rows, EDGES)
    moved = float(rng.uniform(-1, 1))
    big = np.random.default_rng([seed, number, 1])
    many = draw_conditions(300_000, big, moved=moved)
    expected = truth.efficiency(many)[cut]
    limits = np.quantile(many[0], np.linspace(0, 1, MOMENTUM_BINS + 1)[1:-1])
    x = draw_conditions(ANALYSIS_ROWS, rng, moved=moved)
    passed = wrong.draw(x, rng) > THRESHOLDS[cut]
    quarters = [np.searchsorted(limits, p, side="right") for p in (x[0], many[0])]
    for bin_ in range(-1, MOMENTUM_BINS):
        here, there = (
            np.ones(len(q), dtype=bool) if bin_ < 0 else q == bin_ for q in quarters
        )
        own = dict(zip(EDGES, x[:, here], strict=True))
        place = bin_index(own, found.binning)
        box, regular = place_irregular(x[:, here], boxes), bin_index(own, EDGES)
        quoted = [*from_map(found, own, place, passed[here])]
        quoted += [(f"optbinscheme{m}", v, e) for m, v, e in from_bins(box, *irregular)]
        quoted += [
            ("regular bins", v, e)
            for m, v, e in from_bins(regular, value, stat, np.zeros_like(stat))
            if not m
        ]
        for method, v, error in quoted:
            yield {
                "experiment": number,
                "method": method,
                "bin": bin_,
                "n_reference": n_reference,
                "n_boxes": len(boxes),
                "value": v,
                "total": error,
                "truth": float(expected[there].mean()),
            }


METHODS = (
    "map",
    "map, bins alone",
    "optbinscheme",
    "optbinscheme, together",
    "optbinscheme, statistics",
    "regular bins",
)


def summarise(frame: pd.DataFrame) -> str:
    """Return the Markdown table of the documentation."""
    n = frame["experiment"].nunique()
    lines = [
        f"| {n} experiments | within 1 sigma (68.3 %) | within 1.96 sigma (95 %) "
        "| median error quoted "
        "| median error made | momentum bins: 1 sigma | 1.96 sigma | quoted | made |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        own = frame[frame["method"] == method]
        cells = []
        for part in (own[own["bin"] < 0], own[own["bin"] >= 0]):
            off = (part["value"] - part["truth"]).abs()
            cells += [
                f"{100 * (off < part['total']).mean():.1f} %",
                f"{100 * (off < 1.96 * part['total']).mean():.1f} %",
                f"{100 * part['total'].median():.2f} %",
                f"{100 * off.median():.2f} %",
            ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the experiments that are missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logzero.loglevel(logging.ERROR)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "binnings.parquet"
    done = pd.read_parquet(path) if path.exists() else pd.DataFrame()
    first = int(done["experiment"].max()) + 1 if len(done) else 0
    limit = time.monotonic() + 60 * arguments.minutes
    records: list[dict[str, Any]] = []
    for number in range(first, arguments.experiments):
        if time.monotonic() > limit:
            break
        records += experiment(number, seed=arguments.seed)
    frame = pd.concat([done, pd.DataFrame(records)], ignore_index=True)
    frame.to_parquet(path)
    n = frame["experiment"].nunique()
    print(f"{n} experiments\n{summarise(frame)}")
    if n >= arguments.experiments:
        (EXPLANATION / "binnings.inc").write_text(summarise(frame) + "\n")


if __name__ == "__main__":
    main()
