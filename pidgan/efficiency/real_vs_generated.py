"""The record of real against generated efficiencies, from rows that have both.

Real and generated efficiencies belong to the same rows: real targets and targets
generated at the conditions of each row share the fluctuations of conditions and
weights, and are never independent. Let r_i be 0 or 1, g_i the share of K generated
draws that pass, and s one of the two for any cut. Then

    cov(e_a, e_b) = sum w^2 (s_a - e_a) (s_b - e_b) / (sum w)^2

in a bin. Only the bundle and its reference file are needed, for any cut. A denominator
(`pidgan.efficiency.among`) chooses rows, and among real and generated responses. Use
`run_systematics` for the efficiency on another sample with its systematic uncertainty.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pidgan import higher
from pidgan.arguments import checked
from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle import reference as reference_rows
from pidgan.bundle.card import Generator
from pidgan.bundle.opening import GivenGenerator, open_generator
from pidgan.efficiency import binning as bins
from pidgan.efficiency import sorted_rows
from pidgan.efficiency.among import reference_among
from pidgan.efficiency.conditional import conditional_arrays, conditional_tables
from pidgan.efficiency.simulated_shares import SimulatedShares, count_draws, shares_of
from pidgan.efficiency.table import EfficiencyTable, warn_of_table
from pidgan.errors import MapError
from pidgan.notebook import Facts, count, listed, shown
from pidgan.progress import Bar
from pidgan.sample.cuts import Cut, all_of
from pidgan.sample.dataset import ALTERNATIVE_WEIGHT
from pidgan.sample.events import find_reference_events
from pidgan.sample.variables import DISCRIMINANT
from pidgan.sample.weights import n_eff_of_sums

MIN_BIN_EFF = 20.0
"""Effective rows below which the figures of a bin say nothing."""

SHOWN = ("efficiency", "variance", "lower", "upper")
"""Arrays of a table that a record gives for both, and that are NaN where unusable."""

STREAM = "closure"
"""Name of the random draws, which differ from the draws of an efficiency map."""


@shown
@dataclass(frozen=True, kw_only=True)
class RealVsGenerated:
    """Real and generated efficiencies of several cuts on the same rows, in bins.

    Arrays of cuts and bins have the cut first, (n_cuts, n_1, ..., n_d); bins without a
    positive sum of weights hold NaN. Different bins share no rows.

    Attributes:
        species: Species of the rows. The efficiencies of a species that the cuts are
            to reject are misIDs.
        units: Units of the conditions of the binning.
        real: Efficiencies of the real targets.
        generated: Efficiencies of the generated targets.
        covariance: (2 n_cuts, 2 n_cuts, ...) covariance in each bin, of the real
            efficiencies followed by the generated ones.
        difference: (n_cuts, ...) generated minus real efficiency.
        difference_error: (n_cuts, ...) standard error of the difference. It has
            Wilson's term for each of the two efficiencies, unless the variance is
            "pidcalib", so that it does not vanish where all rows of a bin agree.
        moments: (n_cuts, n_cuts, ...) mean products of r - g of two cuts,
            sum w^2 (r_a - g_a) (r_b - g_b) / sum w^2.
        n_moment: Effective rows of the moments, (sum w^2)^2 / sum w^4.
        repeats: Generated draws per row.
    """

    species: str
    units: tuple[str, ...]
    real: EfficiencyTable
    generated: EfficiencyTable
    covariance: FloatArray
    difference: FloatArray
    difference_error: FloatArray
    moments: FloatArray
    n_moment: FloatArray
    repeats: int

    plot = higher.plot

    @property
    def cuts(self) -> tuple[str, ...]:
        """The cuts, in the order of the first axis."""
        return self.real.cuts

    @property
    def binning(self) -> dict[str, tuple[float, ...]]:
        """Edges by condition, in the order of the other axes."""
        return self.real.binning

    @property
    def n_eff(self) -> FloatArray:
        """Effective rows of each bin, whatever the sign of its sum of weights."""
        return n_eff_of_sums(self.real.sum_weights, self.real.sum_weights2)

    @property
    def pull(self) -> FloatArray:
        """Difference over its error, (n_cuts, ...)."""
        return np.asarray(self.difference / self.difference_error)

    @checked
    def measured(self, least: float = MIN_BIN_EFF) -> "RealVsGenerated":
        """Return the record with NaN in bins of fewer effective rows than `least`."""
        use = self.n_eff >= least

        def kept(record: Any, names: Sequence[str]) -> dict[str, Any]:
            return {n: np.where(use, getattr(record, n), np.nan) for n in names}

        own = ("covariance", "difference", "difference_error", "moments")
        return replace(
            self,
            real=replace(self.real, **kept(self.real, SHOWN)),
            generated=replace(self.generated, **kept(self.generated, SHOWN)),
            **kept(self, own),
        )

    @checked
    def figures(self, number: int) -> dict[str, Any]:
        """Return the edges, and the arrays of the cut with this number as lists."""
        arrays = {
            "real": self.real.efficiency[number],
            "generated": self.generated.efficiency[number],
            "difference": self.difference[number],
            "difference_error": self.difference_error[number],
            "n_eff": self.n_eff,
            "pull": self.pull[number],
        }
        edges = {name: list(values) for name, values in self.binning.items()}
        return {"edges": edges, **{name: a.tolist() for name, a in arrays.items()}}

    def frame(self) -> pd.DataFrame:
        """Return one row per cut and bin: edges, both efficiencies and difference."""
        result = self.real.frame().rename(columns={n: f"real_{n}" for n in SHOWN})
        for name in SHOWN:
            result[f"generated_{name}"] = getattr(self.generated, name).reshape(-1)
        wrong = self.real.unphysical | self.generated.unphysical
        result["unphysical"] = wrong.reshape(-1)
        i = np.arange(len(self.cuts))
        result["covariance"] = self.covariance[i, len(i) + i].reshape(-1)
        result["difference"] = self.difference.reshape(-1)
        result["difference_error"] = self.difference_error.reshape(-1)
        return result

    def _facts(self) -> Facts:
        edges = self.binning
        of = f" of {listed(list(edges))}" if edges else ""
        n_bins = count(self.real.sum_weights.size, "bins")
        largest = np.nanmax(np.abs(self.pull), axis=tuple(range(1, self.pull.ndim)))
        return Facts(
            f"{self.species}, {count(len(self.cuts), 'cuts')} in {n_bins}{of}",
            {
                f"{cut}, largest pull": f"{pull:.2f}"
                for cut, pull in zip(self.cuts, largest, strict=True)
            },
        )


@dataclass(frozen=True, kw_only=True)
class ComparedRows:
    """Outcomes of cuts on reference rows (n,), from which records in bins are made.

    Whether the real targets pass, and how many of the `repeats` generated draws do, are
    (n_cuts, n); `alternatives` has the weights of other mass fits, and `discriminant`
    (n,) the variable that weights are fitted in, if it is known. A denominator of
    targets tells which rows count, in `among` (n,), and how many of their draws, in
    `generated_among` (n,). What passes a cut passes the denominator too. Draws from a
    simulation of limited size are not independent, which `simulated` accounts for.
    `events` (n,) numbers the events, whose rows fluctuate together; None if each row
    is one.
    """

    species: str
    cuts: tuple[str, ...]
    columns: dict[str, FloatArray]
    weights: FloatArray
    real: BoolArray
    generated: IntArray
    repeats: int
    units: dict[str, str] = field(default_factory=dict)
    alternatives: dict[str, FloatArray] = field(default_factory=dict)
    discriminant: FloatArray | None = None
    among: BoolArray | None = None
    generated_among: IntArray | None = None
    simulated: SimulatedShares | None = None
    events: IntArray | None = None

    def tables(
        self,
        edges: bins.ChosenEdges,
        *,
        variance: sorted_rows.VarianceName = "wilson",
    ) -> tuple[EfficiencyTable, EfficiencyTable]:
        """Return real and generated efficiencies in bins, without their covariance."""
        if self.among is not None:
            return conditional_tables(
                bins.bin_index(self.columns, edges),
                self.weights,
                **self._conditional(),
                cuts=self.cuts,
                edges=edges,
                variance=variance,
            )
        rows, real, generated = self._sorted(edges)
        binned = partial(EfficiencyTable.from_shares, cuts=self.cuts, edges=edges)
        binned = partial(binned, variance=variance)
        return binned(real, rows), binned(generated, rows)

    def in_bins(
        self,
        edges: bins.ChosenEdges,
        *,
        variance: sorted_rows.VarianceName = "wilson",
    ) -> RealVsGenerated:
        """Return the record in bins; empty edges give one bin of everything."""
        shape = bins.bin_shape(edges)
        real_table, generated_table = self.tables(edges, variance=variance)
        arrays: Sequence[FloatArray]
        if self.among is not None:
            arrays = conditional_arrays(
                bins.bin_index(self.columns, edges),
                self.weights,
                **self._conditional(),
                n_bins=bins.count_bins(edges),
                variance=variance,
            )
        else:
            rows, real, generated = self._sorted(edges)
            arrays = (
                sorted_rows.share_covariance(np.concatenate([real, generated]), rows),
                *_differences(real, generated, rows, variance),
                *sorted_rows.moments(real, generated, rows),
            )
        if self.simulated is not None:
            index = bins.bin_index(self.columns, edges)
            arrays = self.simulated.added_to(arrays, index, self.weights, real_table)
        covariance, difference, error, moments, n_moment = (
            array.reshape((*array.shape[:-1], *shape)) for array in arrays
        )
        return RealVsGenerated(
            species=self.species,
            units=tuple(self.units.get(name, "1") for name in edges),
            real=real_table,
            generated=generated_table,
            covariance=covariance,
            difference=difference,
            difference_error=error,
            moments=moments,
            n_moment=n_moment,
            repeats=self.repeats,
        )

    def take(self, chosen: BoolArray) -> "ComparedRows":
        """Return some of the rows, chosen by a mask (n,)."""
        if chosen.all():
            return self
        arrays = ["weights", "real", "generated", "among", "generated_among"]
        arrays += ["discriminant", "events"]
        own = {name: getattr(self, name) for name in arrays}
        return replace(
            self,
            columns={name: v[chosen] for name, v in self.columns.items()},
            alternatives={name: w[chosen] for name, w in self.alternatives.items()},
            simulated=self.simulated and self.simulated.take(chosen),
            **{n: v[..., chosen] for n, v in own.items() if v is not None},
        )

    def denominator(self) -> "ComparedRows":
        """Return which rows and draws are in the denominator, as outcomes of a cut."""
        if self.among is None or self.generated_among is None:
            raise ValueError("the rows have no denominator of targets")
        return replace(
            self,
            cuts=("denominator",),
            real=self.among[np.newaxis],
            generated=self.generated_among[np.newaxis],
            among=None,
            generated_among=None,
            simulated=self.simulated and self.simulated.denominator(),
        )

    def _conditional(self) -> dict[str, Any]:
        """Outcomes as the functions of `conditional` take them."""
        shares = np.asarray(self.generated_among) / self.repeats
        return {
            "real": self.real,
            "generated": self.generated / self.repeats,
            "among": self.among,
            "generated_among": shares,
            "events": self.events,
        }

    def _sorted(
        self, edges: bins.ChosenEdges
    ) -> tuple[sorted_rows.SortedRows, BoolArray, FloatArray]:
        """Rows by bin, whether they pass, and the share of their draws that do."""
        index = bins.bin_index(self.columns, edges)
        rows = sorted_rows.sort_rows(
            index, self.weights, bins.count_bins(edges), self.events
        )
        generated = self.generated[:, rows.order] / self.repeats
        return rows, self.real[:, rows.order], generated


def compare_rows(
    generator: Generator,
    frame: pd.DataFrame,
    cuts: Sequence[Cut],
    *,
    seed: int = 1,
    repeats: int = reference_rows.REPEATS,
    stream: str = STREAM,
    among: Cut | None = None,
    bar: Bar | None = None,
) -> ComparedRows:
    """Return which rows pass cuts, and how many draws of a stream of this name do.

    `among` is a denominator of targets, which rows and draws then pass too.
    """
    card = generator.card
    asked = cuts if among is None else [*(all_of([c, among]) for c in cuts), among]
    real = reference_rows.passing(card, asked, frame)
    own: dict[str, Any] = {"seed": seed, "repeats": repeats, "stream": stream}
    generated = count_draws(generator, asked, frame, **own, bar=bar)
    n = len(cuts)
    simulated = shares_of(generator, asked, frame, n=n, seed=seed, repeats=repeats)
    repeats = repeats if simulated is None else simulated.near.shape[1]
    events = find_reference_events(frame)
    columns = {str(name): frame[name].to_numpy(np.float64) for name in frame}
    return ComparedRows(
        species=card.species,
        cuts=tuple(cut.text for cut in cuts),
        columns=columns,
        units={v.name: v.unit for v in card.conditions},
        weights=columns["weight"],
        real=real[:n],
        generated=generated[:n],
        among=None if among is None else real[n],
        generated_among=None if among is None else generated[n],
        repeats=repeats,
        events=events,
        discriminant=columns.get(DISCRIMINANT),
        simulated=simulated,
        alternatives={
            name.removeprefix(ALTERNATIVE_WEIGHT): values
            for name, values in columns.items()
            if name.startswith(ALTERNATIVE_WEIGHT)
        },
    )


@checked
def closure_table(
    generator: GivenGenerator,
    reference: reference_rows.GivenReference | None = None,
    *,
    cuts: str | Sequence[str] | None = None,
    where: str | None = None,
    binning: bins.Binning | None = None,
    variance: sorted_rows.VarianceName = "wilson",
    seed: int = 1,
    repeats: int = reference_rows.REPEATS,
) -> RealVsGenerated:
    """Return real and generated efficiencies of rows that were not trained on.

    Args:
        generator: A model or a bundle, or its path.
        reference: Rows it was not trained on: a table of conditions, targets and
            "weight", or a dataset, of which the test part is used, or the path of one
            of them; by default the reference of the generator itself.
        cuts: One cut on targets and conditions, or several; by default those of the
            sample.
        where: Denominator: only what passes this cut is counted. It may name targets,
            conditions and other columns of the reference.
        binning: Binning as in `efficiency_table`; by default that of the sample.
        variance: Formula of the intervals, "wilson" or "pidcalib"; the covariance is
            always that of "pidcalib".
        seed: Seed of the generated draws.
        repeats: Generated draws per row.

    Returns:
        The two tables, their difference and their covariance.

    Raises:
        MapError: There is no reference, or it cannot be used.
        CutError: A cut names an unknown variable or is not a comparison.

    Example:
        >>> found = closure_table(bundle, cuts="RichDLLk > 0", binning={"P": 5})
        ... # doctest: +SKIP
        >>> found.frame()                                         # doctest: +SKIP
    """
    generator = open_generator(generator)
    parsed = reference_rows.parse_cuts(generator.card, cuts)
    frame, own = reference_among(generator, reference, where)
    among = own.targets if own else None
    rows = compare_rows(
        generator, frame, parsed, seed=seed, repeats=repeats, among=among
    )
    check_among(rows, where)
    default = generator.card.sample.binning
    edges = bins.choose_edges(binning, rows.columns, rows.weights, default=default)
    bins.warn_of_outside(rows.columns, edges, bins.bin_index(rows.columns, edges))
    found = rows.in_bins(edges, variance=variance)
    warn_of_table(found.real)
    return found


def check_among(rows: ComparedRows, where: str | None) -> None:
    """Raise a MapError if a denominator of targets leaves real or generated nothing."""
    if rows.among is None or rows.generated_among is None:
        return
    for which, part in (("real", rows.among), ("generated", rows.generated_among)):
        total = float((rows.weights * part).sum())
        if not total > 0:
            raise MapError(
                f"where {where!r}: {np.count_nonzero(part)} of {len(part)} {which} "
                f"rows of the reference pass, with a sum of weights of {total:.6g}, "
                "expected a positive sum"
            )


def _differences(
    real: BoolArray,
    generated: FloatArray,
    rows: sorted_rows.SortedRows,
    variance: sorted_rows.VarianceName,
) -> tuple[FloatArray, FloatArray]:
    """Generated minus real efficiency, and its error, (n_cuts, n_bins) each.

    With d = sum w (g - r) / S, V = sum w^2 (g - r - d)^2 and u = S2 / S, the error is
    sqrt(V + u^2 / 2) / (S + u): Wilson's term counts once for each efficiency.
    """
    w, w2 = rows.weights, rows.weights**2
    s, s2 = rows.total(w), rows.total(w2)
    s = np.where(s > 0, s, np.nan)
    u = s2 / s
    differences, spreads = np.empty((2, len(real), rows.n_bins))
    for cut, (r, g) in enumerate(zip(real, generated, strict=True)):
        step = g.astype(np.float64) - r
        differences[cut] = d = rows.total(w * step) / s
        if rows.groups is not None:
            residual = w * (step - np.repeat(d, np.diff(rows.starts)))
            spreads[cut] = rows.total_product(residual, residual)
            continue
        v = rows.total(w2 * step**2) - 2 * d * rows.total(w2 * step) + d**2 * s2
        spreads[cut] = np.maximum(v, 0.0)  # rounding, where all rows agree
    if variance == "wilson":
        return differences, np.sqrt(spreads + u**2 / 2) / (s + u)
    return differences, np.sqrt(spreads) / s
