"""Figures of pads: average responses by a condition, profiles of moments."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pidgan.plots.canvas import DPI, GENERATED, REAL, style
from pidgan.typing import FloatArray

_LABELS = {
    "pad_centre": "centre [pads]",
    "time_centre": "centre [time bins]",
    "pad_width": r"variance [pads$^2$]",
    "time_width": r"variance [time bins$^2$]",
    "covariance": "covariance [pads · time bins]",
    "sum": "sum of amplitudes",
}


def plot_pads(
    real: ArrayLike,
    x: ArrayLike,
    *,
    edges: Sequence[float],
    generated: ArrayLike | None = None,
    generated_x: ArrayLike | None = None,
    name: str = "crossing angle",
    unit: str = "°",
) -> Figure:
    """Draw the average response of pads and time bins in bins of a condition.

    Args:
        real: (n, pads, time bins), amplitudes.
        x: (n,), the condition.
        edges: of bins of the condition, one column of images each.
        generated: (m, pads, time bins), drawn below the real ones.
        generated_x: (m,); none means `x`.
        name: of the condition.
        unit: of the condition.

    Returns:
        A figure with one colour scale, logarithmic, for all images.
    """
    rows = [("real", np.asarray(real), np.asarray(x))]
    if generated is not None:
        other = rows[0][2] if generated_x is None else np.asarray(generated_x)
        rows.append(("generated", np.asarray(generated), other))
    columns = list(pairwise(edges))
    images = [
        [_average(a, (v >= low) & (v < high)) for low, high in columns]
        for _, a, v in rows
    ]
    peak = float(np.nan_to_num(images).max()) or 1.0
    norm = LogNorm(peak / 1e3, peak)
    with style():
        figure = Figure(
            figsize=(2.6 * len(columns) + 1.4, 2.3 * len(rows) + 0.9),
            dpi=DPI,
            layout="constrained",
        )
        axes = figure.subplots(len(rows), len(columns), squeeze=False)
        drawn = None
        for (label, _, _), line, panels in zip(rows, images, axes, strict=True):
            for image, axis, (low, high) in zip(line, panels, columns, strict=True):
                shown = np.where(image > 0.0, image, np.nan)
                drawn = axis.imshow(shown, origin="lower", aspect="auto", norm=norm)
                if axis in axes[0]:
                    axis.set_title(f"{name} {low:g} to {high:g} {unit}".strip())
                axis.label_outer()
            panels[0].set_ylabel(f"{label}\npad")
        for axis in axes[-1]:
            axis.set_xlabel("time bin")
        if drawn is not None:
            figure.colorbar(drawn, ax=axes, label="mean amplitude")
    return figure


def plot_profiles(
    real: Mapping[str, Any],
    generated: Mapping[str, Any],
    *,
    name: str = "crossing angle",
    unit: str = "°",
) -> Figure:
    """Draw profiles of moments: mean, and mean +- standard deviation, with errors.

    Args:
        real: a `calorimeter.pads.Profile` by the name of its moment.
        generated: the same of generated responses, with the same names.
        name: of the condition.
        unit: of the condition.
    """
    with style():
        figure = Figure(figsize=(11.0, 6.0), dpi=DPI, layout="constrained")
        axes = figure.subplots(2, 3, sharex=True).ravel()
        for axis, (moment, profile) in zip(axes, real.items(), strict=False):
            for found, colour, label in (
                (profile, REAL, "real"),
                (generated[moment], GENERATED, "generated"),
            ):
                _draw_profile(axis, found, colour, label)
            axis.set_ylabel(_LABELS.get(moment, moment))
            axis.set_title(moment.replace("_", " "))
        for axis in axes[3:]:
            axis.set_xlabel(f"{name} [{unit}]" if unit else name)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def _draw_profile(axis: Any, profile: Any, colour: str, label: str) -> None:
    centres = 0.5 * (profile.edges[1:] + profile.edges[:-1])
    error = np.hypot(profile.mean_error, profile.deviation_error)
    axis.errorbar(
        centres, profile.mean, profile.mean_error, fmt="o", color=colour, label=label
    )
    for sign in (-1.0, 1.0):
        line = profile.mean + sign * profile.deviation
        axis.fill_between(
            centres, line - error, line + error, color=colour, alpha=0.35, lw=0
        )


def _average(images: FloatArray, chosen: Any) -> FloatArray:
    """Return the mean image of some rows, NaN if there are none."""
    if not chosen.any():
        return np.full(images.shape[1:], np.nan)
    return np.asarray(images[chosen].mean(axis=0))
