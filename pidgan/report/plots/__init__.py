"""Figures from arrays: nothing here measures anything.

Every function takes arrays and returns a `matplotlib.figure.Figure`; `png` turns it
into bytes. Matplotlib's object interface is used throughout, so that neither a display
nor a global state is needed. Momenta, energies and masses given in MeV are drawn in
GeV (masses of narrow peaks stay in MeV).
"""

from matplotlib.figure import Figure

from pidgan.report.plots.canvas import png
from pidgan.report.plots.efficiencies import (
    plot_breakdown,
    plot_comparison,
    plot_corrected,
    plot_efficiency,
    plot_map,
    plot_roc,
)
from pidgan.report.plots.families import plot_families
from pidgan.report.plots.pads import (
    plot_pads,
    plot_profiles,
)
from pidgan.report.plots.samples import (
    plot_history,
    plot_mass_fit,
    plot_target,
)
from pidgan.report.plots.showers import (
    plot_curves,
    plot_matrix,
    plot_observables,
    plot_response,
    plot_shower,
)

__all__ = [
    "Figure",
    "plot_breakdown",
    "plot_comparison",
    "plot_corrected",
    "plot_curves",
    "plot_efficiency",
    "plot_families",
    "plot_history",
    "plot_map",
    "plot_mass_fit",
    "plot_matrix",
    "plot_observables",
    "plot_pads",
    "plot_profiles",
    "plot_response",
    "plot_roc",
    "plot_shower",
    "plot_target",
    "png",
]
