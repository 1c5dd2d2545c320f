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
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
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
    trust: bool = False,
) -> EfficiencyMap:
    """Return an efficiency map that is multiplied by the factor of a control channel.

    The uncertainty of the factor is a variation of the map, "control". The map keeps
    the cuts that the control channel has.

    Args:
        efficiency_map: Efficiency map, or its JSON file.
        control: Result of `closure`, or its JSON file.
        trust: Whether a factor above 2 or below 1/2 is believed.

    Raises:
        MapError: The control channel was compared with another map, or its factor is
            not believed.

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
    f = np.array(found.shares)
    shares = np.tile(f, (len(kept), 1))
    nominal = known.nominal[kept]
    predicted = np.einsum("cb,cb->c", shares, nominal) + [one.filling for one in rows]
    control_ = np.array([one.control for one in rows])
    factor = control_ / predicted
    pattern = nominal / predicted[:, np.newaxis]
    one_ = np.eye(len(f))
    jacobian = factor[:, np.newaxis, np.newaxis] * (
        one_ - pattern[:, :, np.newaxis] * shares[:, np.newaxis]
    )
    scales = np.array([one.scale for one in rows])
    covariance = np.array(found.covariance)[np.ix_(*[list(numbers.values())] * 2)]
    shifts = shifts_of(covariance * np.outer(scales, scales))
    moved = replace(
        known,
        cuts=tuple(known.cuts[k] for k in kept),
        generated=known.generated[kept],
        discrepancy=factor[:, np.newaxis] * nominal - known.generated[kept],
        covariance=jacobian @ known.covariance[kept] @ jacobian.transpose(0, 2, 1),
        operator=jacobian @ known.operator[kept],
        raw_covariance=known.raw_covariance[np.ix_(kept, kept)],
        passing=known.passing[kept],
        failing=known.failing[kept],
        variations={
            name: np.einsum("cab,cb->ca", jacobian, shift[kept])
            for name, shift in known.variations.items()
        },
        metadata={**known.metadata, NAME: _account(found, rows, factor)},
        # The smoothing of two cuts is no longer wrong together in the way of the model.
        common=None,
    )
    return with_variation(moved, NAME, shifts[:, :, np.newaxis] * pattern)


def transfer_maps(maps: Maps, control: Any, *, trust: bool = False) -> dict[str, Any]:
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
            moved[track] = transfer(own, found, trust=trust)
            is_used = True
    if not is_used:
        raise MapError(
            "the control channel was compared with the map of another bundle than "
            f"those of {', '.join(maps)}, or these have several; run `pidgan closure` "
            "with the map of one bundle"
        )
    return moved


def _account(
    found: ControlClosure, rows: Sequence[CutClosure], factor: FloatArray
) -> dict[str, Any]:
    """Return what the map records of its transfer factor."""
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
