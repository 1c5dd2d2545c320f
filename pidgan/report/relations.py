"""Relations: correlations of pairs of targets, and conditions of test and train rows.

A correlation is Spearman's: Pearson's correlation of ranks, which tails do not rule,
with weights of any sign. Ranks are those among real and generated rows together, and
rows in which a target was not measured do not count.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from pidgan.arrays import BoolArray, FloatArray
from pidgan.report.exchange import exchange
from pidgan.report.metrics import weighted_ks
from pidgan.report.report import Measured, measured, missing
from pidgan.report.track_cuts import quantile_edges
from pidgan.report.track_figures import TrackRows
from pidgan.report.verdict import sigmas
from pidgan.sample.cuts import parse_cut
from pidgan.sample.dataset import Part
from pidgan.sample.weights import n_eff

LEAST_ROWS = 100.0  # effective rows from which a correlation is measured
CORRELATION_BINS = 6  # quantile bins of the first condition
LEAST_ERROR = 1e-6  # of a correlation
MOST_PAIRS = 3  # pairs of targets that are followed in bins
CONDITION_BINS = 500  # of equal population, in which conditions are compared

Pair = tuple[str, str]


def correlation_figures(rows: TrackRows) -> dict[str, Any]:
    """Return the correlations of all pairs of targets, "A, B", real and generated."""
    names = rows.sample.target_names
    found = {}
    for (i, first), (j, second) in itertools.combinations(enumerate(names), 2):
        found[f"{first}, {second}"] = correlation(rows, i, j)
    return found


def followed_pairs(rows: TrackRows, cuts: Sequence[str]) -> list[Pair]:
    """Return the pairs of targets that stand in a cut together, else the first two."""
    names = rows.sample.target_names
    pairs: list[Pair] = []
    for cut in cuts:
        used = parse_cut(cut, names=names).names
        pairs += itertools.combinations(used, 2)
    if not pairs and len(names) > 1:
        pairs = [(names[0], names[1])]
    return list(dict.fromkeys(pairs))[:MOST_PAIRS]


def correlations_in_bins(rows: TrackRows, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return correlations of some pairs in quantile bins of the first condition."""
    name = rows.sample.condition_names[0]
    edges = {name: quantile_edges(rows.real.conditions[:, 0], CORRELATION_BINS)}
    names, bins = rows.sample.target_names, rows.split(edges)
    return {
        f"{first}, {second}": {
            "edges": {name: list(edges[name])},
            "unit": rows.sample.conditions[0].package_unit,
            "bins": [
                correlation(one, names.index(first), names.index(second))
                for one in bins
            ],
        }
        for first, second in pairs
    }


def correlation(rows: TrackRows, i: int, j: int) -> dict[str, Any]:
    """Return the correlation of two targets, real and generated, and the difference.

    The error of the difference takes into account that the rows are the same: with
    z the standardised ranks, a row adds w (z_i z_j - r (z_i^2 + z_j^2) / 2) / S to the
    fluctuation of r.
    """
    y, g, w = rows.real.targets, rows.generated.targets, rows.real.weights
    real = _spearman(y, w, _known(rows, rows.real, i, j), _ranks(y, g, i, j))
    made = _spearman(g, w, _known(rows, rows.generated, i, j), _ranks(g, y, i, j))
    if real is None or made is None:
        return {"real": None, "generated": None, "difference": missing("too few rows")}
    floors = []
    for floor in rows.floors:
        ranks = _ranks(floor.targets, y, i, j)
        known = _known(rows, floor, i, j)
        if (one := _spearman(floor.targets, floor.weights, known, ranks)) is not None:
            floors.append(abs(one[0] - real[0]))
    difference = made[0] - real[0]
    error = float(np.sqrt(np.sum((made[1] - real[1]) ** 2)))
    figure = measured(difference, error, floors, n_eff(w))
    # Targets that are equal in both samples have no fluctuation but rounding.
    figure["pull"] = abs(difference) / error if error > LEAST_ERROR else None
    return {"real": real[0], "generated": made[0], "difference": figure}


def _known(rows: TrackRows, part: Part, i: int, j: int) -> BoolArray:
    """Rows in which both targets were measured."""
    variables = rows.sample.targets
    absent = [np.isin(part.targets[:, t], variables[t].sentinels) for t in (i, j)]
    return np.asarray(~(absent[0] | absent[1]))


def _ranks(one: FloatArray, other: FloatArray, *columns: int) -> Sequence[FloatArray]:
    """Mean ranks of the rows of one sample among both, in some columns."""
    found = []
    for c in columns:
        both = np.sort(np.concatenate([one[:, c], other[:, c]]))
        below = np.searchsorted(both, one[:, c], "left")
        up_to = np.searchsorted(both, one[:, c], "right")
        found.append((below + up_to) / (2.0 * len(both)))
    return found


def _spearman(
    targets: FloatArray,
    weights: FloatArray,
    known: BoolArray,
    ranks: Sequence[FloatArray],
) -> tuple[float, FloatArray] | None:
    """Correlation, and what each row adds to its fluctuation; None of too few rows."""
    w = np.where(known, weights, 0.0)
    total = w.sum()
    if total <= 0 or n_eff(w) < LEAST_ROWS:
        return None
    centred = [rank - (w @ rank) / total for rank in ranks]
    variances = [(w @ c**2) / total for c in centred]
    if min(variances) <= 1e-12:
        return None
    z = [c / np.sqrt(v) for c, v in zip(centred, variances, strict=True)]
    r = float(w @ (z[0] * z[1]) / total)
    return r, w * (z[0] * z[1] - 0.5 * r * (z[0] ** 2 + z[1] ** 2)) / total


def condition_figures(rows: TrackRows, *, seed: int) -> dict[str, Measured]:
    """Return the KS distance of each condition between test and train rows.

    The train rows are those of the floor. The pull compares with distances of two
    samples of one distribution, from random signs of the rows.
    """
    found: dict[str, Measured] = {}
    for c, name in enumerate(rows.sample.condition_names):
        if not rows.floors:
            found[name] = missing("the train part has too few rows")
            continue
        a, wa = rows.real.conditions[:, c], rows.real.weights
        b = np.concatenate([floor.conditions[:, c] for floor in rows.floors])
        wb = np.concatenate([floor.weights for floor in rows.floors])
        found[name] = {
            "value": weighted_ks(a, b, wa, wb),
            "error": None,
            "floor": None,
            "floor_error": None,
            "n_eff": n_eff(wa),
            **_same_distribution(a, b, wa / wa.sum(), wb / wb.sum(), seed=seed),
        }
    return found


def _same_distribution(
    a: FloatArray, b: FloatArray, wa: FloatArray, wb: FloatArray, *, seed: int
) -> dict[str, Any]:
    """Mean and spread of the KS distance of one distribution, and the pull."""
    both = np.concatenate([a, b])
    inner = np.quantile(both, np.linspace(0, 1, CONDITION_BINS + 1)[1:-1])
    place = np.searchsorted(inner, both, side="right")
    w = np.concatenate([wa, -wb])
    sums = exchange(w, [(np.full(len(w), -1), place)], CONDITION_BINS, seed=seed)
    below = np.cumsum(np.bincount(place, np.concatenate([wa, wb]), CONDITION_BINS)) / 2
    steps = np.cumsum(sums.exchanged, axis=1)
    null = np.abs(steps - steps[:, -1:] * below).max(axis=1)
    value = float(np.abs(np.cumsum(sums.value)).max())
    return {
        "floor": float(null.mean()),
        "floor_error": float(null.std(ddof=1)),
        "pull": sigmas(value, null),
    }
