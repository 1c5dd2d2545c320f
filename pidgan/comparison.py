"""Real and generated efficiencies of a cut in bins, and what their difference means."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pidgan.efficiency.table import efficiency_interval
from pidgan.typing import BoolArray, FloatArray, IntArray

MIN_BIN_EFF = 20.0  # effective rows below which a bin's figures say nothing


@dataclass(frozen=True, kw_only=True)
class EfficiencyComparison:
    """Real and generated efficiency of one cut in bins of one or two conditions.

    Attributes:
        species: whose rows; another species than the cut is for makes it a misID.
        cut: the PID cut.
        binning: edges by condition, one or two of them.
        units: units of those conditions.
        real: (...), efficiency of real rows; NaN in bins that cannot be used.
        real_interval: (2, ...), ends of its one-sigma interval.
        generated: (...), efficiency of generated rows.
        generated_interval: (2, ...), ends of its one-sigma interval.
        difference: (...), generated minus real.
        difference_error: (...), its standard error, from sum w^2 (g - r - d)^2 of the
            pairs of rows with the same conditions.
        n_eff: (...), effective rows.
    """

    species: str
    cut: str
    binning: dict[str, tuple[float, ...]]
    units: tuple[str, ...]
    real: FloatArray
    real_interval: FloatArray
    generated: FloatArray
    generated_interval: FloatArray
    difference: FloatArray
    difference_error: FloatArray
    n_eff: FloatArray

    @property
    def pull(self) -> FloatArray:
        """Difference over its error, (...)."""
        return np.asarray(self.difference / self.difference_error)

    def figures(self) -> dict[str, Any]:
        """Return edges and arrays as lists, NaN where a bin cannot be used."""
        names = ("real", "generated", "difference", "difference_error", "n_eff")
        arrays = {name: getattr(self, name).tolist() for name in names}
        edges = {name: list(e) for name, e in self.binning.items()}
        return {"edges": edges, **arrays, "pull": self.pull.tolist()}


def paired_efficiencies(
    generated: BoolArray, real: BoolArray, w: FloatArray, index: IntArray, n_bins: int
) -> dict[str, FloatArray]:
    """Return real and generated efficiencies in bins, and their difference.

    The rows come in pairs with the same conditions and weight, so that the variance
    of d = e_g - e_r is sum w^2 (g - r - d)^2 / S^2, whatever the weights. It has
    Wilson's term for each of the two efficiencies, so that it does not vanish where
    all pairs of a bin agree.

    Args:
        generated: (n,) which generated rows pass.
        real: (n,) which real rows pass.
        w: (n,) weights of any sign.
        index: (n,) flat bin of each pair, negative outside.
        n_bins: number of bins.

    Returns:
        The array fields of `EfficiencyComparison`, the bins flat and last; NaN in bins
        with S <= 0 or fewer than `MIN_BIN_EFF` effective rows.
    """
    inside = index >= 0
    g, r, w, index = generated[inside], real[inside], w[inside], index[inside]

    def total(values: FloatArray) -> FloatArray:
        return np.bincount(index, values, n_bins).astype(np.float64)

    s, s2 = total(w), total(w * w)
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(s2 > 0, s**2 / s2, 0.0)
        s = np.where((s > 0) & (effective >= MIN_BIN_EFF), s, np.nan)
    found: dict[str, FloatArray] = {"n_eff": effective}
    for name, accept in (("real", r), ("generated", g)):
        passed, passed2 = total(w * accept), total(w**2 * accept)
        e, _, low, high = efficiency_interval(passed, s, passed2, s2)
        found[name], found[f"{name}_interval"] = e, np.stack([low, high])
    step = g.astype(np.float64) - r
    d = total(w * step) / s
    u = s2 / s
    v = total(w**2 * step**2) - 2 * d * total(w**2 * step) + d**2 * s2
    found["difference"] = d
    found["difference_error"] = np.sqrt(np.maximum(v, 0.0) + u**2 / 2) / (s + u)
    return found
