"""Figures of pads: average responses by a condition, profiles of moments."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.report.plots import canvas

_LABELS = {
    "pad_centre": "centre [pads]",
    "time_centre": "centre [time bins]",
    "pad_width": r"variance [pads$^2$]",
    "time_width": r"variance [time bins$^2$]",
    "covariance": "covariance [pads · time bins]",
    "sum": "sum of amplitudes",
}

_COLOURS = (canvas.REAL, canvas.GENERATED)
SIGNED = ("covariance",)  # moments that may be negative
SMALLEST_SHARE = 1e-4  # smallest share of the charge that is drawn
MARGIN = 0.35  # room beside the quartiles of the bands, in units of their distance


@canvas.style()
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
    """Draw the response of pads and time bins in bins of a condition.

    The upper panels show average images, the lower ones the mean share of each pad in
    the charge: the response of the pads, whose tails grow with the crossing angle.
    """
    samples = [("real", np.asarray(real), np.asarray(x))]
    if generated is not None:
        other = samples[0][2] if generated_x is None else np.asarray(generated_x)
        samples.append(("generated", np.asarray(generated), other))
    bins = list(pairwise(edges))
    chosen = [
        [images[(v >= low) & (v < high)] for low, high in bins]
        for _, images, v in samples
    ]
    averages = [[_average(images) for images in line] for line in chosen]
    peak = float(np.nan_to_num(averages).max()) or 1.0
    norm = LogNorm(peak / 1e3, peak)
    size = (2.6 * len(bins) + 1.4, 2.3 * len(samples) + 3.2)
    figure, axes = canvas.sheet(*size, len(samples) + 1, len(bins))
    drawn = None
    for (label, _, _), line, panels in zip(samples, averages, axes, strict=False):
        for image, axis in zip(line, panels, strict=True):
            shown = np.where(image > 0.0, image, np.nan)
            drawn = axis.imshow(shown, origin="lower", aspect="auto", norm=norm)
            axis.set_xlabel("time bin")
        panels[0].set_ylabel(f"{label}: pad")
    for axis, (low, high) in zip(axes[0], bins, strict=True):
        space = "" if unit in ("", "°") else " "
        axis.set_title(f"{name} {low:g} to {high:g}{space}{unit}")
    for line, colour, (label, _, _) in zip(chosen, _COLOURS, samples, strict=False):
        for images, axis in zip(line, axes[-1], strict=True):
            _draw_shares(axis, images, colour, label)
    width = (-0.5, samples[0][1].shape[1] - 0.5)
    for axis in axes[-1]:
        axis.set(xlim=width, yscale="log", ylim=(SMALLEST_SHARE, 2.0), xlabel="pad")
    axes[-1, 0].set_ylabel("share of the charge")
    if axes[-1, 0].has_data():
        axes[-1, 0].legend()
    for axis in axes[:, 1:].ravel():
        axis.tick_params(labelleft=False)
    if drawn is not None:
        # Smaller averages are drawn in the darkest colour, zeros in none.
        figure.colorbar(drawn, ax=axes[:-1], label="mean amplitude", extend="min")
    return figure


@canvas.style()
def plot_profiles(
    real: Mapping[str, Any],
    generated: Mapping[str, Any],
    *,
    name: str = "crossing angle",
    unit: str = "°",
) -> Figure:
    """Draw profiles of moments: mean, and mean +- standard deviation, with errors.

    A single response of a very large amplitude can carry the band of its bin out of
    the panel.
    """
    figure, axes = canvas.sheet(11.0, 6.0, 2, 3, sharex=True)
    for axis, (moment, profile) in zip(axes.flat, real.items(), strict=False):
        _draw_profile(axis, profile, canvas.REAL, "real")
        _draw_profile(axis, generated[moment], canvas.GENERATED, "generated")
        title, label = moment.replace("_", " "), _LABELS.get(moment, moment)
        axis.set(title=title, ylabel=label, xlim=profile.edges[[0, -1]])
        if np.isfinite(profile.deviation).any():
            axis.set_ylim(*_limits(profile, positive=moment not in SIGNED))
    for axis in axes[1]:
        axis.set_xlabel(f"{name} [{unit}]" if unit else name)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles.append(Patch(color=canvas.REAL, alpha=0.35, lw=0))
    labels.append("mean ± standard deviation, with error")
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def _draw_profile(axis: Any, profile: Any, colour: str, label: str) -> None:
    x, mean = 0.5 * (profile.edges[1:] + profile.edges[:-1]), profile.mean
    error = np.hypot(profile.mean_error, profile.deviation_error)
    axis.errorbar(x, mean, profile.mean_error, fmt="o", color=colour, label=label)
    for line in (mean - profile.deviation, mean + profile.deviation):
        axis.fill_between(x, line - error, line + error, color=colour, alpha=0.35, lw=0)


def _limits(profile: Any, *, positive: bool) -> tuple[float, float]:
    """Return the range of a panel that ordinary bins fill."""
    low = float(np.nanquantile(profile.mean - profile.deviation, 0.25))
    high = float(np.nanquantile(profile.mean + profile.deviation, 0.75))
    margin = MARGIN * (high - low)
    return (max(low - margin, 0.0) if positive else low - margin), high + margin


def _draw_shares(axis: Any, images: FloatArray, colour: str, label: str) -> None:
    """Draw the mean share of each pad in the sum of a response, with its error."""
    pads = images.sum(axis=2)
    total = pads.sum(axis=1)
    if not (total > 0.0).any():
        return
    shares = pads[total > 0.0] / total[total > 0.0, None]
    error = shares.std(axis=0) / np.sqrt(len(shares))
    mark, size = ("o", 4) if colour == canvas.REAL else ("_", 12)
    points = (np.arange(pads.shape[1]), shares.mean(axis=0), error)
    axis.errorbar(*points, fmt=mark, markersize=size, color=colour, label=label)


def _average(images: FloatArray) -> FloatArray:
    """Return the mean image, NaN if there are none."""
    if not len(images):
        return np.full(images.shape[1:], np.nan)
    return np.asarray(images.mean(axis=0))
