"""The efficiency maps of a track: one, or one for each bundle of a collection.

The bins of several maps are numbered through. A row uses the map of the bundle that
made it. The maps come from calibration samples of their own: their errors are
independent, and so are their variations of the same name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.estimates import map_key
from pidgan.efficiency.table import EfficiencyTable
from pidgan.errors import CutError, MapError


@dataclass(frozen=True, kw_only=True)
class MapPart:
    """A map of a track: its key, its bins among all, and the numbers of its cuts.

    `numbers` has the number in the map of each cut of the track.
    """

    map: EfficiencyMap
    key: str
    bins: slice
    numbers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackMaps:
    """Maps of one track, as one with the bins of all.

    `maps` are those of different bundles. The cuts are those that all of them have.
    """

    maps: tuple[EfficiencyMap, ...]

    @cached_property
    def parts(self) -> tuple[MapPart, ...]:
        """The maps with their places among all bins."""
        ends = np.cumsum([0, *(len(one.n_eff) for one in self.maps)])
        return tuple(
            MapPart(
                map=one,
                key=map_key(one),
                bins=slice(int(start), int(start) + len(one.n_eff)),
                numbers=tuple(map(one.cut_index, self.cuts)),
            )
            for one, start in zip(self.maps, ends, strict=False)
        )

    @cached_property
    def cuts(self) -> tuple[str, ...]:
        """Cuts that every map holds."""
        first, *others = self.maps
        return tuple(c for c in first.cuts if all(_holds(one, c) for one in others))

    @property
    def names(self) -> tuple[str, ...]:
        """Variables that a cut may name."""
        return self.maps[0].names

    @property
    def aliases(self) -> dict[str, str]:
        """Further names for them."""
        return self.maps[0].aliases

    @property
    def metadata(self) -> dict[str, Any]:
        """What the first map says of its bundle."""
        return self.maps[0].metadata

    @property
    def flagged(self) -> tuple[str, ...]:
        """Cuts with few effective rows on one side, in any map."""
        return tuple(
            cut
            for number, cut in enumerate(self.cuts)
            if any(p.map.cuts[p.numbers[number]] in p.map.flagged for p in self.parts)
        )

    @cached_property
    def nominal(self) -> FloatArray:
        """Corrected efficiency (n_cuts, n_bins)."""
        return self._joined("nominal")

    @cached_property
    def generated(self) -> FloatArray:
        """Generated efficiency (n_cuts, n_bins)."""
        return self._joined("generated")

    @cached_property
    def discrepancy(self) -> FloatArray:
        """Correction (n_cuts, n_bins)."""
        return self._joined("discrepancy")

    @cached_property
    def n_eff(self) -> FloatArray:
        """Effective rows of the references in each bin (n_bins,)."""
        return np.concatenate([one.n_eff for one in self.maps])

    @property
    def binning(self) -> dict[str, tuple[float, ...]]:
        """Edges of the first map, for messages."""
        return self.maps[0].binning

    def cut_index(self, cut: str) -> int:
        """Return the number of a cut; a MapError says which map does not hold it."""
        for one in self.maps:
            try:
                own = one.cuts[one.cut_index(cut)]
            except MapError as error:
                named = self.described(one) if len(self.maps) > 1 else ""
                raise MapError(f"{error}{named}") from None
            if own in self.cuts:
                return self.cuts.index(own)
        first = self.maps[0]
        return self.cuts.index(first.cuts[first.cut_index(cut)])

    def described(self, one: EfficiencyMap) -> str:
        """Return what tells a map from others of the same species."""
        return f" (map of {one.metadata['species']}, bundle {bundle_of(one)[:12]})"

    def _joined(self, name: str) -> FloatArray:
        values = [getattr(p.map, name)[list(p.numbers)] for p in self.parts]
        return np.concatenate(values, axis=1)


TrackMap: TypeAlias = EfficiencyMap | TrackMaps
"""What stands for the map of a track."""

Maps: TypeAlias = Mapping[str, TrackMap]
"""Efficiency maps by the prefix of a track."""

GivenMap: TypeAlias = (
    EfficiencyMap | EfficiencyTable | TrackMaps | str | Path | Sequence[Any]
)
"""A map, its JSON file, a folder of such files, or several of these; or a table."""


def parts_of(given: TrackMap) -> tuple[MapPart, ...]:
    """Return the maps of a track with their places among all bins."""
    return given.parts if isinstance(given, TrackMaps) else as_track_maps(given).parts


def as_track_maps(given: TrackMap) -> TrackMaps:
    """Return the maps of a track, of which one may be given alone."""
    return given if isinstance(given, TrackMaps) else TrackMaps(maps=(given,))


def is_table(given: TrackMap) -> bool:
    """Return whether a table of efficiencies stands for the map of a track."""
    return as_track_maps(given).maps[0].is_table


def is_of_simulation(given: TrackMap) -> bool:
    """Return whether the map of a track is of a simulation that nothing changed."""
    return all("simulation" in one.metadata for one in as_track_maps(given).maps)


def bundle_of(efficiency_map: EfficiencyMap) -> str:
    """Return the sha256 of the bundle of a map, empty if it is not known."""
    return str(efficiency_map.metadata.get("bundle_sha256") or "")


def join_maps(track: str, maps: Iterable[EfficiencyMap]) -> TrackMap:
    """Return the maps of a track as one; raise if they do not fit together."""
    found = tuple(maps)
    if len(found) == 1:
        return found[0]
    if not found:
        raise MapError(f"{track}: no efficiency map given, expected at least one")
    seen: dict[str, EfficiencyMap] = {}
    for one in found:
        sha256, species = bundle_of(one), one.metadata["species"]
        if not sha256:
            raise MapError(
                f"{track}: the map of {species} does not say for which bundle it was "
                "measured, expected that of each of several maps; make it again"
            )
        if sha256 in seen:
            raise MapError(
                f"{track}: two maps are of the same bundle of {species} (sha256 "
                f"{sha256[:12]}...); give one, with all cuts"
            )
        seen[sha256] = one
    among = [sorted(one.metadata.get("where_terms", ())) for one in found]
    for one, terms in zip(found, among, strict=True):
        if terms != among[0]:
            raise MapError(
                f"{track}: the maps have different denominators, {found[0].where!r} "
                f"and {one.where!r}; run systematics with the same --where for all"
            )
    joined = TrackMaps(maps=found)
    if not joined.cuts:
        raise MapError(
            f"{track}: the {len(found)} maps have no cut in common; run systematics "
            "for the same cuts"
        )
    return joined


def _holds(efficiency_map: EfficiencyMap, cut: str) -> bool:
    try:
        efficiency_map.cut_index(cut)
    except (MapError, CutError):
        return False
    return True
