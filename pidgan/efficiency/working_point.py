"""Working points: how tight a PID cut must be for a wanted efficiency or misID.

The cut is scanned (`pidgan.efficiency.cut_scan`), and the threshold is sought at which
its corrected efficiency, or the largest misID of other species, has the wanted value.
Efficiencies refer to the kinematics of each species' reference rows. For those of an
analysis, make a map for the cut that was found, and use `pid_efficiency`.
"""

import contextlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.bundle.card import Generator
from pidgan.bundle.reference import REPEATS
from pidgan.efficiency.binning import Binning
from pidgan.efficiency.cut_scan import (
    THRESHOLD,
    CutScan,
    count_decimals,
    fill,
    scan_cut,
)
from pidgan.efficiency.efficiency_map import MIN_EVENTS
from pidgan.errors import MapError, PidganWarning

FINE_STEPS = 7
"""Thresholds between the two neighbours of a scan where the wish is met."""


@dataclass(frozen=True, kw_only=True)
class SpeciesPoint:
    """Efficiency, or misID, of one species at a working point.

    Attributes:
        species: Species of the rows.
        value: Corrected efficiency.
        error: Uncertainty of the corrected efficiency.
        real: Efficiency of the real targets of the reference rows.
        real_error: Half width of the interval of `real`.
        generated: Efficiency of the generated targets.
        few: Whether fewer than 20 effective rows lie on one side of the cut.
    """

    species: str
    value: float
    error: float
    real: float
    real_error: float
    generated: float
    few: bool


@dataclass(frozen=True, kw_only=True)
class WorkingPoint:
    """A cut that has a wanted efficiency or misID.

    Attributes:
        cut: The cut with its threshold.
        threshold: The threshold, rounded.
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

    def to_json(self) -> str:
        """Return the cut and its efficiencies as JSON."""
        names = ("cut", "threshold", "threshold_error", "wanted", "target")
        content = {name: getattr(self, name) for name in names}
        content["species"] = [asdict(point) for point in self.points]
        return json.dumps(content, indent=2, allow_nan=False)

    def text(self) -> str:
        """Return the cut and a table in per cent."""
        error = f"{self.threshold_error:.2g}"
        lines = [f"{self.cut}    ({THRESHOLD} known to +- {error})"]
        head = ("corrected", "+-", "real", "+-", "generated")
        lines.append(f"{'':18}" + "".join(f"{name:>11}" for name in head))
        for i, point in enumerate(self.points):
            kind = "efficiency" if i == 0 else "misID"
            numbers = (point.value, point.error, point.real, point.real_error)
            cells = "".join(f"{100 * v:10.3f}%" for v in (*numbers, point.generated))
            note = "  few reference rows on one side" if point.few else ""
            lines.append(f"{kind + ' ' + point.species:18}{cells}{note}")
        return "\n".join(lines)


def working_point(
    signal: Generator,
    rejected: Sequence[Generator] = (),
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
        signal: Bundle or model of the species to keep, with a reference.
        rejected: Bundles or models of the species to reject, with a reference each.
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
    """
    wishes = [
        (name, float(value))
        for name, value in (("efficiency", efficiency), ("misid", max_misid))
        if value is not None
    ]
    if len(wishes) != 1:
        raise ValueError("give either efficiency or max_misid")
    ((wanted, target),) = wishes
    if not 0 < target < 1:
        raise ValueError(f"{wanted} is {target:g}, expected a number between 0 and 1")
    if wanted == "misid" and not rejected:
        raise ValueError("max_misid needs the bundle of another species")

    def scan_at(x: Sequence[float] | FloatArray | None) -> CutScan:
        return scan_cut(
            signal,
            rejected,
            cut=cut,
            thresholds=x,
            binning=binning,
            seed=seed,
            repeats=repeats,
        )

    scan = scan_at(thresholds)
    what = f"{wanted} of {cut!r}"
    place, slope = _crossing(scan.thresholds, _curve(scan, wanted), target, what)
    decimals = count_decimals(scan.thresholds)
    fine = scan_at(_around(scan.thresholds, place, decimals))
    # Between two thresholds of the scan the curve bends.
    with contextlib.suppress(MapError):
        place, _ = _crossing(fine.thresholds, _curve(fine, wanted), target, what)
    threshold = round(place, decimals)
    at = scan_at([threshold])
    which = 0 if wanted == "efficiency" else 1 + int(np.argmax(at.corrected[1:, 0]))
    points = tuple(
        SpeciesPoint(
            species=species,
            value=float(at.corrected[i, 0]),
            error=float(at.error[i, 0]),
            real=float(at.real[i, 0]),
            real_error=float(at.real_error[i, 0]),
            generated=float(at.generated[i, 0]),
            few=bool(at.few[i, 0]),
        )
        for i, species in enumerate(at.species)
    )
    for point in points:
        if point.few:
            warnings.warn(
                f"{fill(cut, threshold)!r}: the reference of {point.species} has "
                f"fewer than {MIN_EVENTS:.0f} effective rows on one side of it; its "
                "efficiency is mostly an assumption there",
                PidganWarning,
                stacklevel=2,
            )
    return WorkingPoint(
        cut=fill(cut, threshold),
        threshold=threshold,
        threshold_error=points[which].error / abs(slope),
        wanted=wanted,
        target=target,
        points=points,
        scan=scan,
    )


def _curve(scan: CutScan, wanted: str) -> FloatArray:
    """The efficiency, or the largest misID, at each threshold."""
    rows = scan.corrected[:1] if wanted == "efficiency" else scan.corrected[1:]
    return np.asarray(rows.max(axis=0))


def _around(thresholds: FloatArray, place: float, decimals: int) -> FloatArray:
    """A few thresholds between the neighbours of a place, ends included."""
    i = int(np.clip(np.searchsorted(thresholds, place), 1, len(thresholds) - 1))
    low, high = thresholds[i - 1], thresholds[i]
    return np.unique(np.round(np.linspace(low, high, FINE_STEPS), decimals))


def _crossing(
    thresholds: FloatArray, curve: FloatArray, target: float, what: str
) -> tuple[float, float]:
    """Where a falling or rising curve takes a value, and its slope there."""
    falls = curve[0] > curve[-1]
    rising = curve[::-1] if falls else curve
    x = thresholds[::-1] if falls else thresholds
    rising = np.maximum.accumulate(rising)  # a scan may waver within its errors
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
