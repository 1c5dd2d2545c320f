"""Real and generated efficiencies of the reference rows of a bundle, in bins.

Both are efficiencies of the same rows: real targets and targets generated at the
conditions of each row share the fluctuations of conditions and weights, and are never
independent. With r_i = 0 or 1, g_i the share of K generated draws that pass, and s any
of the two for any cut,

    cov(e_a, e_b) = sum w^2 (s_a - e_a) (s_b - e_b) / (sum w)^2

in a bin. Only the bundle and its reference file are needed, for any cut. For the
efficiency on another sample, with its systematic uncertainty: `run_systematics`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle.card import Card, Generator
from pidgan.bundle.reference import (
    REPEATS,
    count_passing,
    parse_cuts,
    passing,
    reference_frame,
)
from pidgan.efficiency.binning import (
    Binning,
    bin_index,
    bin_shape,
    choose_edges,
    count_bins,
)
from pidgan.efficiency.table import (
    EfficiencyTable,
    VarianceName,
    efficiency_interval,
    share_covariance,
    sort_rows,
    table_of_shares,
    warn_of_table,
)

if TYPE_CHECKING:
    from pidgan.sample.dataset import Dataset


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


@dataclass(frozen=True, kw_only=True)
class ClosureTable:
    """Real and generated efficiencies of several cuts in the same bins.

    Attributes:
        species: whose rows.
        units: of the conditions of the binning.
        real: efficiencies of the real targets.
        generated: efficiencies of the generated ones.
        covariance: (2 n_cuts, 2 n_cuts, ...), of real efficiencies, then generated
            ones, in each bin; NaN where sum w <= 0. Bins are uncorrelated.
    """

    species: str
    units: tuple[str, ...]
    real: EfficiencyTable
    generated: EfficiencyTable
    covariance: FloatArray

    @property
    def difference(self) -> FloatArray:
        """(n_cuts, ...), generated minus real."""
        return np.asarray(self.generated.efficiency - self.real.efficiency)

    @property
    def difference_error(self) -> FloatArray:
        """(n_cuts, ...), its standard error.

        With Wilson's term for each of the two efficiencies, unless the variance is
        "pidcalib", so that it does not vanish where all rows of a bin agree.
        """
        n = len(self.real.cuts)
        i = np.arange(n)
        variance = (
            self.covariance[i, i]
            + self.covariance[n + i, n + i]
            - 2 * self.covariance[i, n + i]
        )
        variance = np.maximum(variance, 0)  # of rounding, where all rows agree
        if self.real.variance_name == "pidcalib":
            return np.asarray(np.sqrt(variance))
        s = self.real.sum_weights
        with np.errstate(divide="ignore", invalid="ignore"):
            u = self.real.sum_weights2 / s
            return np.asarray(np.sqrt(variance * s**2 + u**2 / 2) / (s + u))

    def frame(self) -> pd.DataFrame:
        """Return one row per cut and bin: edges, both efficiencies and difference."""
        result = self.real.frame().rename(
            columns={
                name: f"real_{name}"
                for name in ("efficiency", "variance", "lower", "upper")
            }
        )
        for name in ("efficiency", "variance", "lower", "upper"):
            result[f"generated_{name}"] = getattr(self.generated, name).reshape(-1)
        n = len(self.real.cuts)
        i = np.arange(n)
        result["covariance"] = self.covariance[i, n + i].reshape(-1)
        result["difference"] = self.difference.reshape(-1)
        result["difference_error"] = self.difference_error.reshape(-1)
        return result


def closure_table(
    generator: Generator,
    reference: "pd.DataFrame | Dataset | None" = None,
    *,
    cuts: str | Sequence[str] | None = None,
    binning: Binning | None = None,
    variance: VarianceName = "wilson",
    seed: int = 1,
    repeats: int = REPEATS,
) -> ClosureTable:
    """Return real and generated efficiencies of rows that were not trained on.

    Args:
        generator: a model or a bundle.
        reference: as for `run_systematics`; by default that of the generator itself.
        cuts: cuts on targets and conditions; by default those of the sample.
        binning: as for `efficiency_table`; by default that of the sample.
        variance: "wilson" or "pidcalib"; the covariance is the latter's.
        seed: seed of the generated draws.
        repeats: generated draws per row.

    Returns:
        The two tables and their covariance.

    Raises:
        MapError: there is no reference, or it cannot be used.
        CutError: a cut names an unknown variable or is not a comparison.
    """
    rows = compare_rows(generator, reference, cuts=cuts, seed=seed, repeats=repeats)
    chosen = generator.card.sample.binning if binning is None else binning
    return rows.table(chosen, variance=variance)


@dataclass(frozen=True, kw_only=True)
class ClosureRows:
    """Outcomes of cuts on reference rows, from which tables in any bins are made.

    Attributes:
        card: of the generator.
        cuts: their texts.
        columns: (n,) by name: conditions, real targets and "weight".
        real: (n_cuts, n), whether the real targets pass.
        generated: (n_cuts, n), share of the generated draws that pass.
    """

    card: Card
    cuts: tuple[str, ...]
    columns: dict[str, FloatArray]
    real: BoolArray
    generated: FloatArray

    def table(
        self, binning: Binning, *, variance: VarianceName = "wilson"
    ) -> ClosureTable:
        """Return real and generated efficiencies in bins; see `closure_table`."""
        w = self.columns["weight"]
        edges = choose_edges(binning, self.columns, w)
        rows = sort_rows(bin_index(self.columns, edges), w, count_bins(edges))
        real, generated = self.real[:, rows.order], self.generated[:, rows.order]
        covariance = share_covariance(np.concatenate([real, generated]), rows)
        units = {v.name: v.unit for v in self.card.conditions}
        tables = [
            table_of_shares(
                shares, rows, cuts=self.cuts, edges=edges, variance=variance
            )
            for shares in (real, generated)
        ]
        warn_of_table(tables[0])
        return ClosureTable(
            species=self.card.species,
            units=tuple(units.get(name, "1") for name in edges),
            real=tables[0],
            generated=tables[1],
            covariance=covariance.reshape(*covariance.shape[:2], *bin_shape(edges)),
        )


def compare_rows(
    generator: Generator,
    reference: "pd.DataFrame | Dataset | None" = None,
    *,
    cuts: str | Sequence[str] | None = None,
    seed: int = 1,
    repeats: int = REPEATS,
) -> ClosureRows:
    """Return which reference rows pass cuts, and what share of their draws.

    The arguments are those of `closure_table`.
    """
    card = generator.card
    parsed = parse_cuts(card, cuts)
    frame = reference_frame(generator, reference)
    counts = count_passing(
        generator, parsed, frame, seed=seed, repeats=repeats, stream="closure"
    )
    return ClosureRows(
        card=card,
        cuts=tuple(cut.text for cut in parsed),
        columns={str(name): frame[name].to_numpy(np.float64) for name in frame},
        real=passing(card, parsed, frame),
        generated=counts / repeats,
    )
