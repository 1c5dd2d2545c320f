"""Figures of several generators side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pidgan.report.plots.canvas import DPI, FLOOR, GENERATED, style

PANEL = (3.2, 0.38, 1.3)  # width; height of a line; height of everything else, inches


def plot_families(
    names: Sequence[str],
    figures: Mapping[str, tuple[Sequence[float], Sequence[float] | None]],
) -> Figure:
    """Draw a panel of points for each figure, a line for each family.

    Args:
        names: of the families.
        figures: by label, the values and, grey, the floors or None; NaN is left out.

    Returns:
        A figure with the panels side by side.
    """
    width, line, rest = PANEL
    with style():
        figure = Figure(
            figsize=(width * len(figures) + 0.8, line * len(names) + rest),
            dpi=DPI,
            layout="constrained",
        )
        axes = figure.subplots(1, len(figures), sharey=True, squeeze=False)[0]
        places = np.arange(len(names))[::-1]
        for axis, (label, (values, floors)) in zip(axes, figures.items(), strict=True):
            axis.plot(values, places, "o", color=GENERATED)
            if floors is not None:
                axis.plot(
                    floors, places, "|", color=FLOOR, markersize=12, label="floor"
                )
                axis.legend(loc="best")
            axis.set_xlabel(label, loc="right")
            axis.margins(x=0.15)
            axis.grid(axis="y", alpha=0.3)
            axis.minorticks_off()
        axes[0].set_yticks(places, names)
        axes[0].set_ylim(-0.6, max(len(names), 1) - 0.4)
    return figure
