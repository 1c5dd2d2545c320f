"""Maps of several periods of data taking, and the names of their factors.

The efficiency of a candidate is a mean over periods s of a product over tracks t, with
the shares f_s of the luminosity:

    sum_s f_s prod_t e_st.

Each pair of track and period is one factor with a name of its own, `Kplus#2`, so that
errors which factors have in common add up, whether they are of two tracks or of two
periods. With one period, the name is that of the track.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pidgan.application.record import find_made
from pidgan.efficiency.selections import Selection, open_maps, parse_selections
from pidgan.efficiency.track_maps import (
    GivenMap,
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

SIGN = "#"
"""Character before the number of a period, which no branch has."""


def factor_name(track: str, period: int) -> str:
    """Return the name of the factor of a track in a period; 0 is the only one."""
    return f"{track}{SIGN}{period}" if period else track


def track_and_period(factor: str) -> tuple[str, int]:
    """Return the track and the period of a factor."""
    track, sign, period = factor.rpartition(SIGN)
    return (track, int(period)) if sign else (factor, 0)


def open_periods(
    maps: Sequence[Mapping[str, GivenMap]], shares: Sequence[float], *, all_cuts: bool
) -> dict[int, Maps]:
    """Return the maps of each period by number, from 1; the only one has number 0."""
    if len(maps) != len(shares):
        raise ValueError(
            f"there are maps of {len(maps)} periods and {len(shares)} shares, expected "
            "a share for each period"
        )
    check_shares(shares)
    opened: list[Maps] = [open_maps(own) for own in maps]
    check_periods(opened, all_cuts=all_cuts)
    return dict(enumerate(opened, start=int(len(opened) > 1)))


def factor_maps(periods: Mapping[int, Maps]) -> dict[str, TrackMap]:
    """Return the maps of all periods by factor."""
    return {
        factor_name(track, number): own
        for number, maps in periods.items()
        for track, own in maps.items()
    }


def factor_selections(
    cuts: str | Sequence[str] | None, periods: Mapping[int, Maps]
) -> list[Selection]:
    """Return selections with the number of the cut of each factor."""
    found = {n: parse_selections(cuts, maps) for n, maps in periods.items()}
    first = next(iter(found.values()))
    return [
        Selection(
            text=selection.text,
            cuts={
                factor_name(track, number): cut
                for number, own in found.items()
                for track, cut in own[i].cuts.items()
            },
        )
        for i, selection in enumerate(first)
    ]


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
