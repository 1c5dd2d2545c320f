"""Efficiencies of several periods, combined by their shares of the luminosity.

An ntuple that does not say to which period a row belongs, as simulation often does not,
has columns of the bundle of each period, with suffixes of their own. The efficiency is
then the mean over the periods, weighted by their shares. Rows that several periods have
in common fluctuate together, and the errors of their maps are independent.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pidgan.application.record import find_made
from pidgan.efficiency.estimates import Estimates
from pidgan.efficiency.pid_efficiency import PidEfficiencies
from pidgan.efficiency.quoted import PidEfficiency
from pidgan.efficiency.track_maps import (
    Maps,
    TrackMap,
    as_track_maps,
    bundle_of,
    is_table,
)
from pidgan.errors import MapError
from pidgan.files import tables
from pidgan.files.frames import Rows

ROUNDING = 1e-6
"""Difference from 1 up to which shares sum to 1."""

SUMMED = ("value", "stat", "syst", "total")


def check_shares(shares: Sequence[float]) -> None:
    """Raise a MapError unless shares are positive and sum to 1."""
    texts = [f"{share:g}" for share in shares]
    if not all(math.isfinite(share) and share > 0 for share in shares):
        raise MapError(f"shares of periods are {', '.join(texts)}, expected above 0")
    total = math.fsum(shares)
    if abs(total - 1) > ROUNDING:
        meant = ", ".join(f"{share / total:.6g}" for share in shares)
        raise MapError(
            f"shares of periods are {', '.join(texts)}, which sum to {total:g}, "
            f"expected 1; in these proportions: {meant}"
        )


def check_periods(periods: Sequence[Maps], *, all_cuts: bool) -> None:
    """Raise a MapError if the maps of a track in different periods do not go together.

    They must be of the same species, denominator and inner edges; the outer edges are
    those of the trained range, and may differ. With `all_cuts`, cuts must be the same.
    """
    first, *others = periods
    for number, own in enumerate(others, start=2):
        if set(own) != set(first):
            raise MapError(
                f"period {number} has maps of {', '.join(own)}, expected of "
                f"{', '.join(first)}, as period 1"
            )
        for track, given in own.items():
            for what, value in _facts(given).items():
                expected = _facts(first[track])[what]
                if what == "cuts" and not all_cuts:
                    continue
                if value != expected:
                    raise MapError(
                        f"{track}: the map of period {number} has {what} "
                        f"{_text(value)}, expected {_text(expected)}, as that of "
                        f"period 1{_FIXES.get(what, '')}"
                    )


_FIXES = {
    "cuts": "; say with --cut which are meant",
    "inner edges": "; run systematics with the same --binning for both",
    "denominator": "; run systematics with the same --where for both",
}


def _facts(given: TrackMap) -> dict[str, Any]:
    one = as_track_maps(given).maps[0]
    kind = "table" if one.is_table else "map"
    return {
        "kind": kind,
        "species": "" if one.is_table else one.metadata["species"],
        "denominator": sorted(one.metadata.get("where_terms", ())),
        "inner edges": {n: tuple(e[1:-1]) for n, e in one.binning.items()},
        "cuts": tuple(given.cuts),
    }


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        found = (f"{n} at {', '.join(f'{x:g}' for x in e)}" for n, e in value.items())
        return "; ".join(found) or "none"
    listed = value if isinstance(value, str) else ", ".join(value)
    return listed or "none"


def suffix_of(maps: Maps, files: Rows) -> str:
    """Return the suffix of the columns that the bundles of maps have generated.

    It is that which records tell, or none if they tell nothing; a MapError says that
    tracks or files have different ones.
    """
    found: dict[str, str] = {}
    for source in tables.find_sources(files):
        made = find_made(source)
        for track, given in maps.items():
            hashes = {bundle_of(one) for one in as_track_maps(given).maps}
            for part in () if is_table(given) else made.get(track, []):
                if hashes & {bundle["sha256"] for bundle in part.bundles}:
                    found[str(part.request.get("suffix", ""))] = f"{source}, {track}"
    if len(found) > 1:
        (one, at), (other, there), *_ = found.items()
        raise MapError(
            f"columns of one period have suffix {one!r} in {at} and {other!r} in "
            f"{there}, expected the same"
        )
    return next(iter(found), "")


def efficiency_of_periods(
    periods: Sequence[Maps],
    shares: Sequence[float],
    files: Rows,
    *,
    evaluate: Callable[..., PidEfficiencies],
    suffix: str = "",
    binning: Any = None,
    all_cuts: bool = False,
) -> PidEfficiencies:
    """Return the efficiency on ntuples, averaged over periods.

    Args:
        periods: Maps by track of each period.
        shares: Share of the luminosity of each period; they sum to 1.
        files: Files, or rows in memory, with columns of the bundle of each period.
        evaluate: `pid_efficiency` with all other arguments; it gets maps, files,
            `suffix` and `binning`.
        suffix: Suffix of the columns, if it is the same for all periods.
        binning: Bins of the analysis.
        all_cuts: Whether all cuts of the maps are meant.

    Returns:
        The combined efficiencies, one for each selection and bin.

    Raises:
        MapError: Shares do not sum to 1, or maps do not go together.
    """
    check_shares(shares)
    check_periods(periods, all_cuts=all_cuts)
    found: list[PidEfficiencies] = []
    for maps in periods:
        own = suffix or suffix_of(maps, files)
        edges = found[0].binning if found else binning
        found.append(evaluate(maps, files, suffix=own, binning=edges))
    return combine_periods(found, shares)


def combine_periods(
    found: Sequence[PidEfficiencies], shares: Sequence[float]
) -> PidEfficiencies:
    """Return the mean of the efficiencies of periods, which have the same selections.

    A MapError says that shares do not sum to 1, or that selections or bins differ.
    """
    check_shares(shares)
    first = found[0]
    for one in found[1:]:
        if one.estimates.labels != first.estimates.labels:
            raise MapError(
                f"periods have the efficiencies {', '.join(first.estimates.labels)} "
                f"and {', '.join(one.estimates.labels)}, expected the same"
            )
    total: Estimates = first.estimates * shares[0]
    for one, share in zip(found[1:], shares[1:], strict=True):
        total = total + one.estimates * share
    estimates = replace(total, labels=first.estimates.labels)
    results = tuple(
        _mean([one.results[i] for one in found], shares, estimate)
        for i, estimate in enumerate(estimates)
    )
    names = [f"period {number}" for number in range(1, len(found) + 1)]
    return replace(
        first,
        results=results,
        estimates=estimates,
        unproven=tuple(dict.fromkeys(text for one in found for text in one.unproven)),
        outside={
            f"{track} ({name})": own
            for name, one in zip(names, found, strict=True)
            for track, own in one.outside.items()
        },
        sample_cuts={
            f"{track} ({name})": own
            for name, one in zip(names, found, strict=True)
            for track, own in one.sample_cuts.items()
        },
        n_uncovered=max(one.n_uncovered for one in found),
        n_not_among=max(one.n_not_among for one in found),
    )


def _mean(
    parts: Sequence[PidEfficiency], shares: Sequence[float], estimate: Any
) -> PidEfficiency:
    """Return one efficiency of all periods; counts are those of the most rows."""
    f = np.asarray(shares)
    generated = float(f @ [one.generated for one in parts])
    flags = dict.fromkeys(flag for one in parts for flag in one.flags)
    most = max(parts, key=lambda one: one.n_rows)
    return replace(
        most,
        **{name: getattr(estimate, name) for name in SUMMED},
        generated=generated,
        correction=float(f @ [one.correction for one in parts]),
        outside_fraction=float(f @ [one.outside_fraction for one in parts]),
        n_invalid=max(one.n_invalid for one in parts),
        few_events=any(one.few_events for one in parts),
        flags=tuple(flags),
    )
