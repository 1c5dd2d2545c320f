"""Response of showers in bins of the incident energy: mean, width, tails and start.

Hadrons of 2 GeV and of 100 GeV have nothing in common: what is pooled over energies
shows little. Each figure of a bin has its error and its pull; the largest of all bins
is beside the floor, which is the largest that two samples of real showers have.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pidgan.arrays import BoolArray, FloatArray
from pidgan.report import shower_metrics
from pidgan.report.shower_measures import Measures
from pidgan.report.shower_metrics import Response
from pidgan.report.shower_tests import (
    chance_of_response,
    code_pull,
    histogram_pull,
    mean_pull,
    share_pull,
    width_pull,
    worst_figure,
)

LOW_TAIL = 0.5  # of the median response: what leaks out, or starts late
FAR = 3.0  # half widths of the central 68.3 % below the median
MIN_BIN = 20  # showers of a bin that are tested


def responses(
    y: Measures,
    g: Measures,
    energy: FloatArray,
    edges: FloatArray,
    species: dict[str, BoolArray],
) -> dict[str, tuple[Response, Response]]:
    """Return the real and generated response of the first view for each species."""
    response = shower_metrics.energy_response
    found = {}
    for name, rows in species.items():
        real, made = (response(v.totals[rows], energy[rows], edges) for v in (y, g))
        found[name] = real, made
    return found


def response_figures(
    y: Measures,
    g: Measures,
    energy: FloatArray,
    edges: FloatArray,
    rows: BoolArray,
    unit: str,
    seed: int,
) -> dict[str, Any]:
    """Return figures of bins of the energy, for showers that a mask (n,) chooses."""
    real, made = (
        shower_metrics.energy_response(v.totals[rows], energy[rows], edges)
        for v in (y, g)
    )
    linearity = made.mean / real.mean - 1
    both = (made, real)
    linearity_error = np.hypot(*(r.mean_error / r.mean for r in both))
    ratio = made.resolution / real.resolution
    ratio_error = ratio * np.hypot(*(r.resolution_error / r.resolution for r in both))
    chance = chance_of_response(y.totals[rows], energy[rows], edges, seed=seed)
    place = np.searchsorted(edges, energy, side="right") - 1
    bins = [rows & (place == i) for i in range(len(edges) - 1)]
    by_bin = _by_bin(y, g, energy, bins)
    worst = [
        worst_figure(values, errors, null, by_bin[f"{name}_pull"])
        for name, values, errors, null in (
            ("linearity", linearity, linearity_error, chance[0]),
            ("resolution", ratio - 1, ratio_error, chance[1]),
        )
    ]
    figures = {
        "energy": real.energy.tolist(),
        "unit": unit,
        "showers": real.count.tolist(),
        "linearity": linearity.tolist(),
        "linearity_error": linearity_error.tolist(),
        "linearity_floor": np.sqrt(np.mean(chance[0] ** 2, axis=0)).tolist(),
        "worst_linearity": worst[0]["value"],
        "resolution_real": real.resolution.tolist(),
        "resolution_generated": made.resolution.tolist(),
        "resolution_ratio": ratio.tolist(),
        "resolution_ratio_error": ratio_error.tolist(),
        "resolution_floor": np.sqrt(np.mean(chance[1] ** 2, axis=0)).tolist(),
        "worst_resolution": worst[1]["value"],
        "worst": {"linearity": worst[0], "resolution": worst[1]},
        "fit_real": asdict(shower_metrics.fit_resolution(real)),
        "fit_generated": asdict(shower_metrics.fit_resolution(made)),
    }
    return figures | by_bin


def _by_bin(
    y: Measures,
    g: Measures,
    energy: FloatArray,
    bins: Sequence[BoolArray],
) -> dict[str, Any]:
    """Shares of tails, and pulls, as lists with one number for each bin."""
    names = ("low", "empty")
    keys = [f"{name}_{kind}" for name in names for kind in ("real", "generated")]
    pulls = ("linearity", "resolution", "shape", "low", "empty", "start")
    found: dict[str, Any] = {key: [] for key in (*keys, *(f"{p}_pull" for p in pulls))}
    deep = next(iter(y.layers), None)
    starts = None if deep is None else (y.starts(deep), g.starts(deep))
    for rows in bins:
        if np.sum(rows) < MIN_BIN:
            for values in found.values():
                values.append(None)
            continue
        a, b = (v.totals[rows] / energy[rows] for v in (y, g))
        tails = _tails(a, b)
        for name in names:
            real, made = tails[name]
            found[f"{name}_real"].append(float(real.mean()))
            found[f"{name}_generated"].append(float(made.mean()))
            found[f"{name}_pull"].append(share_pull(real, made))
        found["linearity_pull"].append(mean_pull(a, b))
        found["resolution_pull"].append(width_pull(a, b))
        found["shape_pull"].append(histogram_pull(a, b))
        started = None if starts is None else code_pull(*(s[rows] for s in starts))
        found["start_pull"].append(started)
    return found


def tail_figures(
    y: Measures, g: Measures, energy: FloatArray, edges: FloatArray
) -> dict[str, dict[str, Any]]:
    """Return shares of showers in the tails of the response of their energy.

    The value is the generated share, the floor the real one.
    """
    place = np.searchsorted(edges, energy, side="right") - 1
    marks: dict[str, list[list[BoolArray]]] = {}
    for i in range(len(edges) - 1):
        rows = place == i
        if rows.any():
            pair = (v.totals[rows] / energy[rows] for v in (y, g))
            for name, found in _tails(*pair).items():
                marks.setdefault(name, []).append(list(found))
    figures: dict[str, dict[str, Any]] = {}
    for name, parts in marks.items():
        real, made = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
        shares = [float(v.mean()) for v in (made, real)]
        errors = [np.sqrt(p * (1 - p) / len(real)) for p in shares]
        figures[name] = {
            "value": shares[0],
            "error": float(errors[0]),
            "floor": shares[1],
            "floor_error": float(errors[1]),
            "pull": share_pull(real, made),
        }
    return figures


def _tails(a: FloatArray, b: FloatArray) -> dict[str, tuple[BoolArray, BoolArray]]:
    """Which real and generated responses of one energy are in a tail.

    Median and width are those of both together, so that neither is preferred.
    """
    low, middle, high = np.quantile(
        np.concatenate([a, b]),
        [shower_metrics.ONE_SIGMA, 0.5, 1 - shower_metrics.ONE_SIGMA],
    )
    far = middle - FAR * (high - low) / 2
    return {
        "low": (a < LOW_TAIL * middle, b < LOW_TAIL * middle),
        "far": (a < far, b < far),
        "empty": (a <= 0, b <= 0),
    }
