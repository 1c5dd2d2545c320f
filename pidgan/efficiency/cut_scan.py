"""Scans: the efficiencies of a cut with a free threshold, for several species.

A cut with a free threshold, `RichDLLk > x`, is evaluated at many x, for each species
with its own bundle and reference file:

- real and generated efficiencies of the reference rows (`closure_table`);
- the corrected efficiency, sum_b f_b (g_b + d_b) of an efficiency map with bins b
  (`run_systematics`), with f_b = sum_b w / sum w of the reference rows, and its
  covariance between thresholds, f^T C f and the variations of the map.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pidgan.arrays import BoolArray, FloatArray
from pidgan.bundle.card import Generator
from pidgan.bundle.reference import REPEATS, reference_frame
from pidgan.efficiency.binning import Binning, bin_index
from pidgan.efficiency.real_vs_generated import RealVsGenerated, closure_table
from pidgan.efficiency.systematics import run_systematics
from pidgan.errors import CutError, PidganWarning
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
        error: FloatArray = np.sqrt(np.einsum("sii->si", self.covariance))
        return error

    def frame(self) -> pd.DataFrame:
        """Return one row per threshold and species."""
        n = len(self.thresholds)
        columns = {
            "threshold": np.tile(self.thresholds, len(self.species)),
            "species": np.repeat(np.array(self.species), n),
        }
        names = ("real", "real_error", "generated", "generated_error", "corrected")
        for name in (*names, "error", "few"):
            columns[name] = getattr(self, name).reshape(-1)
        return pd.DataFrame(columns)


def scan_cut(
    signal: Generator,
    rejected: Sequence[Generator] = (),
    *,
    cut: str,
    thresholds: Sequence[float] | FloatArray | None = None,
    binning: Binning | None = None,
    seed: int = 1,
    repeats: int = REPEATS,
) -> CutScan:
    """Evaluate a cut at many thresholds, for several species.

    Args:
        signal: Bundle or model of the species to keep, with a reference.
        rejected: Bundles or models of the species to reject, with a reference each.
        cut: Cut with `x` for the threshold, such as "RichDLLk > x & RichDLLp < 5".
        thresholds: Thresholds at which the cut is evaluated; by default quantiles of
            all species.
        binning: Binning of the correction, as in `run_systematics`; by default bins of
            equal population in the first three conditions.
        seed: Seed of the generated draws.
        repeats: Generated draws per row.

    Returns:
        The efficiencies and their covariance.

    Raises:
        MapError: A reference is missing.
        CutError: The cut has no threshold, or names an unknown variable.
    """
    generators = [signal, *rejected]
    frames = [reference_frame(generator, None) for generator in generators]
    if thresholds is None:
        x = _quantile_thresholds(generators, frames, cut)
    else:
        x = np.unique(np.asarray(thresholds, dtype=np.float64))
        if len(x) == 0 or not np.isfinite(x).all():
            raise ValueError(f"thresholds are {thresholds!r}, expected finite numbers")
    for generator in generators:
        _parse(generator, cut)
    cuts = [fill(cut, value) for value in x]
    with warnings.catch_warnings():
        # The ends of a scan are meant to pass all or nothing; `few` says so.
        warnings.simplefilter("ignore", PidganWarning)
        found = [
            _scan_one(generator, frame, cuts, binning, seed=seed, repeats=repeats)
            for generator, frame in zip(generators, frames, strict=True)
        ]
    return CutScan(
        cut=cut,
        thresholds=x,
        records=tuple(record for record, *_ in found),
        corrected=np.array([corrected for _, corrected, _, _ in found]),
        covariance=np.array([covariance for *_, covariance, _ in found]),
        few=np.array([few for *_, few in found]),
    )


def fill(cut: str, threshold: float) -> str:
    """Return the cut with a number for the threshold."""
    return re.sub(rf"\b{THRESHOLD}\b", f"{threshold:.12g}", cut)


def count_decimals(thresholds: FloatArray) -> int:
    """Return the decimals of a threshold: `DIGITS` of the range, or of one number."""
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
    record = closure_table(
        generator, frame, cuts=cuts, binning={}, seed=seed, repeats=repeats
    )
    if binning is None:
        names = generator.card.condition_names
        binning = dict(zip(names, SCAN_BINS, strict=False))
    found = run_systematics(
        generator, frame, cuts=cuts, binning=binning, seed=seed, repeats=repeats
    )
    w = frame["weight"].to_numpy(dtype=np.float64)
    place = bin_index(frame, found.binning)
    inside = place >= 0
    sums = np.bincount(place[inside], w[inside], len(found.n_eff))
    fractions = sums / w[inside].sum()
    covariance = found.propagate(fractions)
    for variation in found.variations.values():
        shift = variation @ fractions
        covariance = covariance + np.outer(shift, shift)
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
            raise CutError(
                f"cut {cut!r}: no row of {generator.card.species} has values"
            )
        found.append(np.quantile(values, np.linspace(TAIL, 1 - TAIL, steps)))
    pooled = np.unique(np.concatenate(found))
    return np.unique(np.round(pooled, count_decimals(pooled)))
