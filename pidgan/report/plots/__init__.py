"""Figures from arrays: nothing here measures anything.

Every function takes arrays and returns a `matplotlib.figure.Figure`; `png` turns it
into bytes. `name` and `unit` label the horizontal axis, `what` or `label` the vertical
one; a `cut` is written above the figure. Matplotlib's object interface is used
throughout, so that neither a display nor a global state is needed. Momenta and energies
given in MeV are drawn in GeV (masses of narrow peaks stay in MeV).
"""

from matplotlib.figure import Figure

from pidgan.report.plots.canvas import png
from pidgan.report.plots.small import small_png

__all__ = [
    "Figure",
    "canvas",
    "control",
    "efficiencies",
    "pads",
    "png",
    "samples",
    "showers",
    "small_png",
]
