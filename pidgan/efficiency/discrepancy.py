"""Efficiency maps from rows whose real and generated targets were cut on.

The raw differences in bins are smoothed (`pidgan.efficiency.smoothing`) for every cut;
variations shift the smoothed difference in all bins together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency.binning import bin_index, bin_shape
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.real_vs_generated import ComparedRows, RealVsGenerated
from pidgan.efficiency.smoothing import (
    MIN_N_EFF,
    SmoothDifference,
    is_measured,
    prior_scale,
    raw_covariance,
    raw_difference,
    regularise_variances,
    smooth_difference,
)
from pidgan.errors import MapError
from pidgan.sample.weights import n_eff, n_eff_of_sums

VARIATIONS = ("binning", "sweights")
"""Variations that rows alone allow; the default of `run_systematics`."""

Edges = Mapping[str, tuple[float, ...]]


def map_from_rows(
    rows: ComparedRows,
    *,
    edges: Edges,
    empty_bins: Callable[[IntArray], FloatArray],
    metadata: Mapping[str, Any],
    variations: Sequence[str] = VARIATIONS,
) -> EfficiencyMap:
    """Return the map of rows whose real and generated targets were cut on.

    Args:
        rows: The rows.
        edges: Edges by condition.
        empty_bins: Function that returns the generated efficiency (n_cuts, n) of n
            bins without rows, from their numbers.
        metadata: Metadata of the map.
        variations: Variations to include, of `VARIATIONS`.

    Raises:
        MapError: No bin has a positive sum of weights.
    """
    place = bin_index(rows.columns, edges)
    found = rows.in_bins(edges).measured(MIN_N_EFF)
    if not is_measured(found).any():
        raise MapError(
            f"reference of {len(place)} rows: no bin has a positive sum of weights; "
            "expected more rows or fewer bins"
        )
    generated = _generated_everywhere(rows, place, found, empty_bins)
    smooth, variances = _smooth(found, generated)
    mean = np.array([cut.mean for cut in smooth])
    populations = found.n_eff.reshape(-1)
    shifts = {}
    if "binning" in variations:
        shifts["binning"] = _coarse_mean(rows, edges, generated, populations) - mean
    if "sweights" in variations:
        for name, weights in rows.alternatives.items():
            other = replace(rows, weights=weights).tables(edges)
            change = raw_difference(*other) - raw_difference(
                found.real, found.generated
            )
            change = np.nan_to_num(change)
            shifts[f"sweights_{name}"] = np.array(
                [cut.operator @ d for cut, d in zip(smooth, change, strict=True)]
            )
    w, inside = rows.weights, place >= 0
    passed, failed = rows.real & inside, ~rows.real & inside
    return EfficiencyMap(
        cuts=rows.cuts,
        binning=dict(edges),
        generated=generated,
        discrepancy=mean,
        covariance=np.array([cut.covariance for cut in smooth]),
        operator=np.array([cut.operator for cut in smooth]),
        raw_covariance=raw_covariance(found, variances),
        n_eff=populations,
        passing=n_eff_of_sums(np.maximum(passed @ w, 0), passed @ w**2),
        failing=n_eff_of_sums(np.maximum(failed @ w, 0), failed @ w**2),
        variations=shifts,
        metadata={**metadata, "reference": _summary(rows, place)},
    )


def _generated_everywhere(
    rows: ComparedRows,
    place: IntArray,
    found: RealVsGenerated,
    empty_bins: Callable[[IntArray], FloatArray],
) -> FloatArray:
    """Generated efficiency of every bin, (n_cuts, n_bins).

    Where the weights do not allow an average, their absolute values are used.
    """
    inside = place >= 0
    at, size = place[inside], np.abs(rows.weights[inside])
    norm = np.bincount(at, size, found.n_eff.size)
    result = found.generated.efficiency.reshape(len(rows.cuts), -1).copy()
    for b in np.flatnonzero(~is_measured(found) & (norm > 0)):
        chosen = at == b
        share = rows.generated[:, inside][:, chosen] / rows.repeats
        result[:, b] = share @ size[chosen] / norm[b]
    empty = np.flatnonzero(norm <= 0)
    if len(empty):
        result[:, empty] = empty_bins(empty)
    return result


def _smooth(
    found: RealVsGenerated, generated: FloatArray
) -> tuple[list[SmoothDifference], FloatArray]:
    """Smooth each cut, twice: the variances need the efficiency that it finds."""
    shape = found.real.shape
    raw = raw_difference(found.real, found.generated)
    scale = prior_scale(generated, found)
    both = (found.real.efficiency + found.generated.efficiency).reshape(raw.shape)
    variances = regularise_variances(found, both / 2)
    first = [
        smooth_difference(d, v, shape=shape, scale=s)
        for d, v, s in zip(raw, variances, scale, strict=True)
    ]
    corrected = generated + np.array([cut.mean for cut in first])
    variances = regularise_variances(found, corrected)
    second = [
        smooth_difference(d, v, shape=shape, scale=s, start=cut.log_amplitudes)
        for d, v, s, cut in zip(raw, variances, scale, first, strict=True)
    ]
    return second, variances


def _coarse_mean(
    rows: ComparedRows,
    edges: Edges,
    generated: FloatArray,
    populations: FloatArray,
) -> FloatArray:
    """Discrepancy with bins merged two by two, on the fine bins, (n_cuts, n_bins)."""
    coarse = {name: (*values[:-1:2], values[-1]) for name, values in edges.items()}
    steps = np.unravel_index(np.arange(len(populations)), bin_shape(edges))
    merged = np.ravel_multi_index([step // 2 for step in steps], bin_shape(coarse))
    # One row more in each bin, so that merged empty bins have an average too.
    norm = np.bincount(merged, populations + 1)
    average = np.array([np.bincount(merged, (populations + 1) * g) for g in generated])
    smooth, _ = _smooth(rows.in_bins(coarse).measured(MIN_N_EFF), average / norm)
    return np.array([cut.mean[merged] for cut in smooth])


def _summary(rows: ComparedRows, place: IntArray) -> dict[str, Any]:
    w = rows.weights
    return {
        "rows": len(w),
        "rows_outside": int(np.count_nonzero(place < 0)),
        "sum_weights": float(w.sum()),
        "n_eff": n_eff(w),
    }
