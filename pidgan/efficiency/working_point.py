"""Working points: how tight a PID cut must be for a wanted efficiency or misID.

A cut with a free threshold, `RichDLLk > x`, is evaluated at many x, for a signal
species and others that it is to reject, each with its own bundle and reference file:

- real and generated efficiencies of the reference rows (`closure_table`);
- the corrected efficiency, sum_b f_b (g_b + d_b) of an efficiency map with bins b
  (`run_systematics`), with f_b = sum_b w / sum w of the reference rows, and its
  covariance between thresholds, f^T C f and the variations of the map.

Efficiencies refer to the kinematics of each species' reference rows. An analysis has
others: make a map for the cut that was found, and use `pid_efficiency`.
"""

import contextlib
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pidgan import higher
from pidgan.arguments import brief, checked
from pidgan.arrays import BoolArray, FloatArray
from pidgan.bundle.card import Generator
from pidgan.bundle.opening import GivenGenerator, open_generator
from pidgan.bundle.reference import REPEATS, reference_frame
from pidgan.efficiency.binning import Binning, bin_index
from pidgan.efficiency.efficiency_map import MIN_EVENTS
from pidgan.efficiency.real_vs_generated import RealVsGenerated, closure_table
from pidgan.efficiency.sorted_rows import is_unphysical
from pidgan.efficiency.systematics import run_systematics
from pidgan.errors import CutError, MapError, PidganWarning
from pidgan.notebook import Facts, count, shown
from pidgan.sample.cuts import Cut, compared_values, parse_cut

THRESHOLD = "x"
"""Name of the threshold in a cut."""

STEPS = 40
"""Thresholds of a scan: about 2 % of the rows between neighbours."""

TAIL = 0.005
"""Quantiles of each species from which and to which thresholds are taken."""

DIGITS = 3
"""Significant digits of a threshold, relative to the range of the scan."""

SCAN_BINS = (6, 4, 3)
"""Bins of equal population in the first three conditions. Integrated over the
reference rows, the corrected efficiency hardly depends on them, and a scan has many
cuts."""

FINE_STEPS = 7
"""Thresholds between the two neighbours of a scan where the wish is met."""


@shown
@dataclass(frozen=True, kw_only=True)
class CutScan:
    """Efficiencies of one cut at several thresholds, for several species.

    Attributes:
        cut: The cut, with `x` for the threshold.
        thresholds: (n,) increasing thresholds.
        records: Real and generated efficiencies of all rows at each threshold, by
            species; the first is the signal.
        corrected: (n_species, n) generated efficiency + discrepancy.
        covariance: (n_species, n, n) covariance of the corrected efficiencies of one
            species; species have different rows and are independent.
        few: (n_species, n) whether fewer than 20 effective rows lie on one side of the
            cut.
    """

    cut: str
    thresholds: FloatArray
    records: tuple[RealVsGenerated, ...]
    corrected: FloatArray
    covariance: FloatArray
    few: BoolArray

    @property
    def species(self) -> tuple[str, ...]:
        """Species of the rows, the signal first."""
        return tuple(record.species for record in self.records)

    @property
    def real(self) -> FloatArray:
        """(n_species, n), efficiency of the real targets."""
        return np.array([record.real.efficiency for record in self.records])

    @property
    def real_error(self) -> FloatArray:
        """(n_species, n), half width of the interval of `real`."""
        return np.array([record.real.error for record in self.records])

    @property
    def generated(self) -> FloatArray:
        """(n_species, n), efficiency of the generated targets."""
        return np.array([record.generated.efficiency for record in self.records])

    @property
    def generated_error(self) -> FloatArray:
        """(n_species, n), half width of the interval of `generated`."""
        return np.array([record.generated.error for record in self.records])

    @property
    def error(self) -> FloatArray:
        """(n_species, n), uncertainty of the corrected efficiencies."""
        return np.asarray(np.sqrt(np.einsum("sii->si", self.covariance)))

    def frame(self) -> pd.DataFrame:
        """Return one row per threshold and species."""
        n = len(self.thresholds)
        names = ("real", "real_error", "generated", "generated_error", "corrected")
        return pd.DataFrame(
            {
                "threshold": np.tile(self.thresholds, len(self.species)),
                "species": np.repeat(np.array(self.species), n),
                **{k: getattr(self, k).ravel() for k in (*names, "error", "few")},
                "unphysical": is_unphysical(self.corrected).ravel(),
            }
        )

    def _facts(self) -> Facts:
        low, high = self.thresholds[0], self.thresholds[-1]
        return Facts(
            f"{self.cut}: {count(len(self.thresholds), 'thresholds')} from {low:.4g} "
            f"to {high:.4g}",
            {"species": ", ".join(record.species for record in self.records)},
        )


@dataclass(frozen=True, kw_only=True)
class SpeciesPoint:
    """Efficiency, or misID, of one species at a working point.

    Attributes:
        value: Corrected efficiency, and `error` its uncertainty.
        real: Efficiency of the real targets of the reference rows.
        real_error: Half width of the interval of `real`.
        generated: Efficiency of the generated targets.
        few: Whether fewer than 20 effective rows lie on one side of the cut.
        unphysical: Whether the value is below 0 or above 1.
    """

    species: str
    value: float
    error: float
    real: float
    real_error: float
    generated: float
    few: bool
    unphysical: bool


@shown
@dataclass(frozen=True, kw_only=True)
class WorkingPoint:
    """A cut that has a wanted efficiency or misID.

    Attributes:
        cut: The cut with its threshold, which is rounded.
        threshold_error: Change of the threshold that the uncertainty of the efficiency
            is worth.
        wanted: "efficiency" or "misid".
        target: Wanted value of the efficiency or misID.
        points: Efficiencies at the threshold by species, the signal first.
        scan: The scan that the threshold was found from.
    """

    cut: str
    threshold: float
    threshold_error: float
    wanted: str
    target: float
    points: tuple[SpeciesPoint, ...]
    scan: CutScan

    plot = higher.plot

    def to_json(self) -> str:
        """Return the cut and its efficiencies as JSON."""
        names = ("cut", "threshold", "threshold_error", "wanted", "target")
        content = {name: getattr(self, name) for name in names}
        content["species"] = [asdict(point) for point in self.points]
        return json.dumps(content, indent=2, allow_nan=False)

    def text(self) -> str:
        """Return the cut and a table in per cent."""
        head = ("corrected", "+-", "real", "+-", "generated")
        lines = [
            f"{self.cut}    ({THRESHOLD} known to +- {self.threshold_error:.2g})",
            f"{'':18}" + "".join(f"{name:>11}" for name in head),
        ]
        for i, point in enumerate(self.points):
            kind = "efficiency" if i == 0 else "misID"
            numbers = (point.value, point.error, point.real, point.real_error)
            cells = "".join(f"{100 * v:10.3f}%" for v in (*numbers, point.generated))
            note = "  few reference rows on one side" if point.few else ""
            note += "  outside [0, 1]" if point.unphysical else ""
            lines.append(f"{kind + ' ' + point.species:18}{cells}{note}")
        return "\n".join(lines)

    def _facts(self) -> Facts:
        return Facts(
            f"{self.cut} for {self.wanted} {self.target:g}: threshold "
            f"{self.threshold:g} +- {self.threshold_error:.2g}",
            {
                one.species: f"{100 * one.value:.2f} +- {100 * one.error:.2f} %"
                for one in self.points
            },
        )


@checked
def working_point(
    signal: GivenGenerator,
    rejected: Sequence[GivenGenerator] = (),
    *,
    cut: str,
    efficiency: float | None = None,
    max_misid: float | None = None,
    thresholds: Sequence[float] | FloatArray | None = None,
    binning: Binning | None = None,
    seed: int = 1,
    repeats: int = REPEATS,
) -> WorkingPoint:
    """Find the threshold at which a cut has a wanted efficiency or misID.

    Args:
        signal: Bundle or model of the species to keep, with a reference, or its path.
        rejected: The same of the species to reject.
        cut: Cut with `x` for the threshold, such as "RichDLLk > x & RichDLLp < 5".
        efficiency: Wanted corrected efficiency of the signal.
        max_misid: Highest corrected misID allowed for any rejected species, instead of
            an efficiency.
        thresholds: Thresholds at which the cut is evaluated; by default quantiles of
            all species.
        binning: Binning of the correction, as in `run_systematics`; by default bins of
            equal population in the first three conditions.
        seed: Seed of the generated draws.
        repeats: Generated draws per row.

    Returns:
        The cut, its efficiencies at that threshold, and the scan.

    Raises:
        MapError: A reference is missing, or no threshold of the scan reaches the wish.
        CutError: The cut has no threshold, or names an unknown variable.

    Example:
        >>> found = working_point(kaon, [pion], cut="RichDLLk > x", max_misid=0.05)
        ... # doctest: +SKIP
    """
    wishes = {"efficiency": efficiency, "misid": max_misid}
    given = [(name, float(wish)) for name, wish in wishes.items() if wish is not None]
    if len(given) != 1:
        raise ValueError("give either efficiency or max_misid")
    ((wanted, target),) = given
    if not 0 < target < 1:
        raise ValueError(f"{wanted} is {target:g}, expected a number between 0 and 1")
    if wanted == "misid" and not rejected:
        raise ValueError("max_misid needs the bundle of another species")

    bundles = partial(scan_cut, signal, rejected, cut=cut, binning=binning)
    scan_at = partial(bundles, seed=seed, repeats=repeats)
    scan = scan_at(thresholds=thresholds)
    what = f"{wanted} of {cut!r}"
    place, slope = _crossing(scan.thresholds, _curve(scan, wanted), target, what)
    decimals = _decimals(scan.thresholds)
    # A few thresholds between the neighbours of the place, ends included.
    last = len(scan.thresholds) - 1
    i = int(np.clip(np.searchsorted(scan.thresholds, place), 1, last))
    near = np.linspace(scan.thresholds[i - 1], scan.thresholds[i], FINE_STEPS)
    fine = scan_at(thresholds=np.round(near, decimals))
    # Between two thresholds of the scan the curve bends.
    with contextlib.suppress(MapError):
        place, _ = _crossing(fine.thresholds, _curve(fine, wanted), target, what)
    threshold = round(place, decimals)
    at = scan_at(thresholds=[threshold])
    which = 0 if wanted == "efficiency" else 1 + int(np.argmax(at.corrected[1:, 0]))
    names = [field.name for field in fields(SpeciesPoint)]
    found = at.frame().rename(columns={"corrected": "value"})[names]
    points = tuple(
        SpeciesPoint(**dict(zip(names, row, strict=True)))
        for row in found.itertuples(index=False)
    )
    for point in points:
        if point.few:
            warnings.warn(
                f"{_fill(cut, threshold)!r}: the reference of {point.species} has "
                f"fewer than {MIN_EVENTS:.0f} effective rows on one side of it; its "
                "efficiency is mostly an assumption there",
                PidganWarning,
                stacklevel=2,
            )
    return WorkingPoint(
        cut=_fill(cut, threshold),
        threshold=threshold,
        threshold_error=points[which].error / abs(slope),
        wanted=wanted,
        target=target,
        points=points,
        scan=scan,
    )


@checked
def scan_cut(
    signal: GivenGenerator,
    rejected: Sequence[GivenGenerator] = (),
    *,
    cut: str,
    thresholds: Sequence[float] | FloatArray | None = None,
    binning: Binning | None = None,
    seed: int = 1,
    repeats: int = REPEATS,
) -> CutScan:
    """Evaluate a cut at many thresholds; the arguments are those of `working_point`."""
    generators = [open_generator(one) for one in (signal, *rejected)]
    frames = [reference_frame(generator, None) for generator in generators]
    if thresholds is None:
        x = _quantile_thresholds(generators, frames, cut)
    else:
        x = np.unique(np.asarray(thresholds, dtype=np.float64))
        if len(x) == 0 or not np.isfinite(x).all():
            raise ValueError(
                f"thresholds are {brief(thresholds)}, expected finite numbers"
            )
    for generator in generators:
        _parse(generator, cut)
    cuts = [_fill(cut, value) for value in x]
    with warnings.catch_warnings():
        # The ends of a scan are meant to pass all or nothing; `few` says so.
        warnings.simplefilter("ignore", PidganWarning)
        found = [
            _scan_one(generator, frame, cuts, binning, seed=seed, repeats=repeats)
            for generator, frame in zip(generators, frames, strict=True)
        ]
    records, *arrays = zip(*found, strict=True)
    corrected, covariance, few = map(np.array, arrays)
    return CutScan(
        cut=cut,
        thresholds=x,
        records=records,
        corrected=corrected,
        covariance=covariance,
        few=few,
    )


def _fill(cut: str, threshold: float) -> str:
    """The cut with a number for the threshold."""
    return re.sub(rf"\b{THRESHOLD}\b", f"{threshold:.12g}", cut)


def _decimals(thresholds: FloatArray) -> int:
    """Decimals of a threshold: `DIGITS` of the range, or of one number."""
    size = float(np.ptp(thresholds)) or float(np.abs(thresholds).max()) or 1.0
    return DIGITS - int(np.floor(np.log10(size)))


def _scan_one(
    generator: Generator,
    frame: pd.DataFrame,
    cuts: list[str],
    binning: Binning | None,
    *,
    seed: int,
    repeats: int,
) -> tuple[RealVsGenerated, FloatArray, FloatArray, BoolArray]:
    """Record, corrected efficiencies, their covariance, and `few`, of one species."""
    if binning is None:
        names = generator.card.condition_names
        binning = dict(zip(names, SCAN_BINS, strict=False))
    draws: dict[str, Any] = {"cuts": cuts, "seed": seed, "repeats": repeats}
    record = closure_table(generator, frame, binning={}, **draws)
    found = run_systematics(generator, frame, binning=binning, **draws)
    place = bin_index(frame, found.binning)
    w = frame["weight"].to_numpy(np.float64)[place >= 0]
    fractions = np.bincount(place[place >= 0], w, len(found.n_eff)) / w.sum()
    covariance = found.propagate(fractions)
    for variation in found.variations.values():
        covariance += np.outer(variation @ fractions, variation @ fractions)
    return record, found.nominal @ fractions, covariance, found.few


def _parse(generator: Generator, cut: str) -> Cut:
    """The cut, with its threshold as a name; checked against the generator."""
    card = generator.card
    names = [*card.target_names, *card.condition_names]
    if THRESHOLD in names:
        raise CutError(f"{THRESHOLD!r} is a variable of {card.species}, no threshold")
    return parse_cut(cut, names=[*names, THRESHOLD], aliases=card.sample.aliases)


def _quantile_thresholds(
    generators: Sequence[Generator], frames: Sequence[pd.DataFrame], cut: str
) -> FloatArray:
    """Quantiles, over all species, of the values that the cut compares."""
    steps = max(STEPS // len(generators), 2)
    found: list[FloatArray] = []
    for generator, frame in zip(generators, frames, strict=True):
        sentinels = {v.name: v.sentinels for v in generator.card.targets}
        values = compared_values(_parse(generator, cut), THRESHOLD, frame, sentinels)
        values = values[np.isfinite(values)]
        if len(values) == 0:
            species = generator.card.species
            raise CutError(f"cut {cut!r}: no row of {species} has values")
        found.append(np.quantile(values, np.linspace(TAIL, 1 - TAIL, steps)))
    pooled = np.unique(np.concatenate(found))
    return np.unique(np.round(pooled, _decimals(pooled)))


def _curve(scan: CutScan, wanted: str) -> FloatArray:
    """The efficiency, or the largest misID, at each threshold."""
    chosen = slice(1) if wanted == "efficiency" else slice(1, None)
    return np.asarray(scan.corrected[chosen].max(axis=0))


def _crossing(
    thresholds: FloatArray, curve: FloatArray, target: float, what: str
) -> tuple[float, float]:
    """Where a falling or rising curve takes a value, and its slope there."""
    order = slice(None, None, -1 if curve[0] > curve[-1] else 1)
    x = thresholds[order]
    rising = np.maximum.accumulate(curve[order])  # may waver within its errors
    if not rising[0] <= target <= rising[-1]:
        raise MapError(
            f"{what} is {target:g} at no threshold: from {THRESHOLD} = "
            f"{thresholds[0]:g} to {thresholds[-1]:g} it goes from {curve[0]:.4g} to "
            f"{curve[-1]:.4g}"
        )
    i = int(np.clip(np.searchsorted(rising, target), 1, len(rising) - 1))
    step, rise = x[i] - x[i - 1], rising[i] - rising[i - 1]
    share = (target - rising[i - 1]) / rise if rise > 0 else 0.0
    overall = (rising[-1] - rising[0]) / (x[-1] - x[0])
    return float(x[i - 1] + share * step), float(rise / step if rise else overall)
