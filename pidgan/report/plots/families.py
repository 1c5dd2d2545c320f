"""Figures of several generators side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pidgan.report.plots.canvas import DPI, FLOOR, GENERATED, style

PANEL = (3.2, 0.38, 1.6)  # width; height of a line; height of everything else, inches


def plot_families(
    names: Sequence[str],
    figures: Mapping[str, tuple[Sequence[float], Sequence[float] | None]],
) -> Figure:
    """Draw a panel of points for each figure, a line for each family.

    Args:
        names: Names of the families.
        figures: Values of each figure by its label, and its floors or None; NaN is
            left out.

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
        marks = {"color": FLOOR, "markersize": 12, "label": "floor"}
        for axis, (label, (values, floors)) in zip(axes, figures.items(), strict=True):
            axis.plot(values, places, "o", color=GENERATED, label="family")
            if floors is not None:
                axis.plot(floors, places, "|", **marks)
            axis.set_xlabel(label, loc="right")
            axis.margins(x=0.15)
            axis.grid(axis="y", alpha=0.3)
            axis.minorticks_off()
        axes[0].set_yticks(places, names)
        axes[0].set_ylim(-0.6, max(len(names), 1) - 0.4)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure
