"""The transfer factor of a control channel, as a part of an efficiency map.

Let e_b be the efficiency of a cut in bin b of a map, f_b the shares of the control
sample, p = sum_b f_b e_b + delta its prediction, with delta what generated responses
add within the bins, and c its efficiency. The factor R = c / p multiplies the map:

    e'_b = R e_b,    de'_b = R de_b - R (e_b / p) sum_a f_a de_a + (e_b / p) dc,

so that what is wrong with the map in the same way for the control channel and for the
analysis cancels. The last term, with the uncertainty of the control sample, is the
variation "control"; where several cuts are there, its covariance is that of their
efficiencies. The factor is taken as constant; if the control channel says otherwise,
its uncertainty is scaled as the Particle Data Group does (Phys. Rev. D 110 (2024)
030001, Sec. 5.2.2 of the introduction).

A factor may also be that of each bin of the comparison, R_k = c_k / p_k. The bins of
the map in bin k then have R_k in the formulas above, with the shares among them, and
the parts of dc_k are independent between bins; in a bin, cuts have the correlation that
they have in the whole sample.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arguments import checked
from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency.binning import bin_shape
from pidgan.efficiency.control_result import ControlClosure, CutClosure
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.track_maps import Maps
from pidgan.efficiency.variations import shifts_of, with_variation
from pidgan.errors import MapError, PidganWarning

NAME = "control"
"""Name of the variation, and of its account in the metadata of a map."""

MOST = 2.0
"""Factor, or its inverse, above which a control channel is not believed."""


@checked
def transfer(
    efficiency_map: EfficiencyMap | str | Path,
    control: ControlClosure | str | Path,
    *,
    in_bins: bool = False,
    trust: bool = False,
) -> EfficiencyMap:
    """Return an efficiency map that is multiplied by the factor of a control channel.

    The uncertainty of the factor is a variation of the map, "control". The map keeps
    the cuts that the control channel has.

    Args:
        efficiency_map: Efficiency map, or its JSON file.
        control: Result of `closure`, or its JSON file.
        in_bins: Whether each bin of the comparison has a factor of its own. The bins
            must be made of bins of the map.
        trust: Whether a factor above 2 or below 1/2 is believed.

    Raises:
        MapError: The control channel was compared with another map, its factor is not
            believed, or its bins are not made of bins of the map.

    Example:
        >>> found = transfer("kaon-map.json", "control.json")     # doctest: +SKIP
        >>> pid_efficiency({"Kplus": found}, "out.root")          # doctest: +SKIP
    """
    known, found = EfficiencyMap.open(efficiency_map), ControlClosure.open(control)
    if NAME in known.metadata:
        raise MapError(
            "the efficiency map has a transfer factor already, expected none"
        )
    _check_same(known, found)
    if found.shared > 0:
        raise MapError(
            f"{found.shared:.0%} of the rows of the control channel made the map too: "
            "its factor would count the same fluctuation twice; use a sample that the "
            "map has not seen"
        )
    numbers = _numbers(known, found)
    rows = [found.cuts[row] for row in numbers.values()]
    kept = list(numbers)
    _check_factors(rows, trust=trust)
    lost = [cut for k, cut in enumerate(known.cuts) if k not in numbers]
    if lost:
        warnings.warn(
            f"the control channel has no factor for {', '.join(lost)}: the map with "
            "the factor leaves them out",
            PidganWarning,
            stacklevel=3,
        )
    nominal = known.nominal[kept]
    parts = _in_bins(known, found, rows) if in_bins else _of_all(nominal, found, rows)
    if in_bins:
        _check_bins(rows, parts.factor, trust=trust)
    own = parts.factor[:, parts.group]
    pattern = nominal / parts.predicted[:, parts.group]
    same = parts.group[:, np.newaxis] == parts.group
    jacobian = own[:, :, np.newaxis] * (
        np.eye(len(same)) - pattern[:, :, np.newaxis] * (parts.shares * same)
    )
    scales = np.array([1.0 if in_bins else one.scale for one in rows])
    covariance = np.array(found.covariance)[np.ix_(*[list(numbers.values())] * 2)]
    if in_bins:
        size = np.sqrt(np.diag(covariance))
        covariance = covariance / np.outer(size, size)
    shifts = [
        shifts_of(covariance * np.outer(errors * scales, errors * scales))[
            :, :, np.newaxis
        ]
        * (pattern * (parts.group == k))
        for k, errors in enumerate(parts.errors)
    ]
    moved = replace(
        known,
        cuts=tuple(known.cuts[k] for k in kept),
        generated=known.generated[kept],
        discrepancy=own * nominal - known.generated[kept],
        covariance=jacobian @ known.covariance[kept] @ jacobian.transpose(0, 2, 1),
        operator=jacobian @ known.operator[kept],
        raw_covariance=known.raw_covariance[np.ix_(kept, kept)],
        passing=known.passing[kept],
        failing=known.failing[kept],
        variations={
            name: np.einsum("cab,cb->ca", jacobian, shift[kept])
            for name, shift in known.variations.items()
        },
        metadata={**known.metadata, NAME: _account(found, rows, parts)},
        # The smoothing of two cuts is no longer wrong together in the way of the model.
        common=None,
    )
    return with_variation(moved, NAME, np.concatenate(shifts))


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """A control channel in the groups of bins that have a factor of their own.

    `group` (n_bins,) is that of each bin of the map, `shares` (n_bins,) those of the
    control sample in its group. `control` and `predicted` are (n_cuts, n_groups), and
    `errors` (n_groups, n_cuts) are those of the control sample, relative to the whole
    one if there is one group.
    """

    group: IntArray
    shares: FloatArray
    control: FloatArray
    predicted: FloatArray
    errors: FloatArray

    @property
    def factor(self) -> FloatArray:
        """Factors (n_cuts, n_groups)."""
        return self.control / self.predicted


def _of_all(
    nominal: FloatArray, found: ControlClosure, rows: Sequence[CutClosure]
) -> _Parts:
    """Return one group of all bins."""
    f = np.array(found.shares)
    shares = np.tile(f, (len(rows), 1))
    predicted = np.einsum("cb,cb->c", shares, nominal) + [one.filling for one in rows]
    return _Parts(
        group=np.zeros(len(f), dtype=np.int64),
        shares=f,
        control=np.array([[one.control] for one in rows]),
        predicted=predicted[:, np.newaxis],
        errors=np.ones((1, len(rows))),
    )


def _in_bins(
    known: EfficiencyMap, found: ControlClosure, rows: Sequence[CutClosure]
) -> _Parts:
    """Return a group for each bin of the comparison; a MapError says why there is none.

    Every bin of the map must be inside a bin of the comparison.
    """
    group = np.zeros(len(found.shares), dtype=np.int64)
    steps = np.indices(bin_shape(known.binning)).reshape(len(known.binning), -1)
    places = dict(zip(known.binning, steps, strict=True))
    for name, edges in found.binning.items():
        if name not in known.binning:
            raise MapError(
                f"the control channel was compared in bins of {name!r}, which is none "
                f"of {', '.join(known.binning)} of the map: its factor has no bins"
            )
        own = np.array(known.binning[name])
        ends = np.searchsorted(own, edges)
        near = np.abs(own[np.minimum(ends, len(own) - 1)] - edges)
        if near.max() > 1e-9 * np.ptp(own) or ends[0] > 0 or ends[-1] < len(own) - 1:
            listed = ", ".join(f"{edge:g}" for edge in own)
            raise MapError(
                f"the bins of the control channel in {name!r} are not made of bins of "
                f"the map, expected some of its edges, the first and the last one "
                f"among them: {listed}"
            )
        step = np.searchsorted(ends, places[name], side="right") - 1
        group = group * (len(edges) - 1) + step
    numbers = {
        name: np.array([one.bins[name] for one in rows], dtype=np.float64)
        for name in ("control", "predicted", "control_error", "used")
    }
    if poor := int(np.count_nonzero((numbers["used"] == 0).any(axis=0))):
        raise MapError(
            f"{poor} of {group.max() + 1} bins of the control channel have too few "
            "rows, or no fit, for a factor of their own; expected wider bins"
        )
    f = np.array(found.shares)
    total = np.bincount(group, f, numbers["control"].shape[1])
    return _Parts(
        group=group,
        shares=f / np.where(total > 0, total, 1.0)[group],
        control=numbers["control"],
        predicted=numbers["predicted"],
        errors=numbers["control_error"].T,
    )


def _check_bins(rows: Sequence[CutClosure], factor: FloatArray, *, trust: bool) -> None:
    """Raise a MapError if the factor of a bin is not believed; with trust, warn."""
    for one, own in zip(rows, factor, strict=True):
        _check_factors(
            [replace(one, factor=float(value)) for value in own], trust=trust
        )


def transfer_maps(
    maps: Maps, control: Any, *, in_bins: bool = False, trust: bool = False
) -> dict[str, Any]:
    """Return maps by track, those of the bundle of a control channel with its factor.

    A MapError says that there is none.
    """
    found = ControlClosure.open(control)
    moved: dict[str, Any] = dict(maps)
    is_used = False
    for track, own in maps.items():
        if not isinstance(own, EfficiencyMap) or own.is_table:
            continue
        if own.metadata.get("bundle_sha256") == found.bundle_sha256:
            moved[track] = transfer(own, found, in_bins=in_bins, trust=trust)
            is_used = True
    if not is_used:
        raise MapError(
            "the control channel was compared with the map of another bundle than "
            f"those of {', '.join(maps)}, or these have several; run `pidgan closure` "
            "with the map of one bundle"
        )
    return moved


def _account(
    found: ControlClosure, rows: Sequence[CutClosure], parts: _Parts
) -> dict[str, Any]:
    """Return what the map records of its transfer factor, or of those in bins."""
    bins = {}
    if len(parts.errors) > 1:
        errors = parts.errors.T / parts.predicted
        bins = {
            "bins": {name: list(edges) for name, edges in found.binning.items()},
            "factors_in_bins": {
                one.cut: {"factor": own.tolist(), "error": error.tolist()}
                for one, own, error in zip(rows, parts.factor, errors, strict=True)
            },
        }
    factor = [one.factor for one in rows] if bins else parts.factor[:, 0].tolist()
    return {
        "source": found.source,
        "method": found.method,
        "n_rows": found.n_rows,
        "factors": {
            one.cut: {
                "factor": float(value),
                "error": one.factor_stat,
                "p_value": one.p_value,
                "flags": list(one.flags),
            }
            for one, value in zip(rows, factor, strict=True)
        },
        **bins,
    }


def _check_same(known: EfficiencyMap, found: ControlClosure) -> None:
    """Raise a MapError if a control channel was compared with another map."""
    if known.metadata.get("bundle_sha256") != found.bundle_sha256:
        raise MapError(
            "the control channel was compared with the map of another bundle; run "
            "`pidgan closure` with this map"
        )
    if dict(known.binning) != dict(found.map_binning):
        raise MapError(
            "the control channel was compared with a map in other bins; run `pidgan "
            "closure` with this map"
        )


def _numbers(known: EfficiencyMap, found: ControlClosure) -> dict[int, int]:
    """Return the place in the control channel of each cut of the map that it has."""
    numbers = {known.cut_index(one.cut): row for row, one in enumerate(found.cuts)}
    return dict(sorted(numbers.items()))


def _check_factors(rows: Sequence[CutClosure], *, trust: bool) -> None:
    """Raise a MapError if a factor is not believed; with trust, warn."""
    for one in rows:
        if 1 / MOST < one.factor < MOST:
            continue
        text = (
            f"the transfer factor of {one.cut!r} is {one.factor:.3g} +- "
            f"{one.factor_error:.2g}: a control channel that is so far off has another "
            "species, cut or selection"
        )
        if not trust:
            raise MapError(f"{text}; check them, or go on with trust")
        warnings.warn(text, PidganWarning, stacklevel=4)
