"""Where a tree holds a track, and in which bin of its maps each row lies."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pidgan.application.conditions import FoundCondition, check_numbers
from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.efficiency.binning import count_outside
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.filling import offsets_of
from pidgan.efficiency.made_by import (
    NOT_MADE,
    MadeBy,
    MadeInPasses,
    find_made_by,
    is_usable,
)
from pidgan.efficiency.proof import Proof
from pidgan.efficiency.recorded import Told
from pidgan.efficiency.row_plans import find_track_conditions, told_of
from pidgan.efficiency.track_maps import MapPart, is_table, parts_of
from pidgan.efficiency.usable_rows import has_targets, is_species


@dataclass(frozen=True, kw_only=True)
class TrackColumns:
    """Where a tree holds a track; `species` and `status` are None if not asked for.

    `made_by` says which map serves which row, None if the first one serves all.
    """

    track: str
    maps: tuple[tuple[MapPart, tuple[FoundCondition, ...]], ...]
    made_by: MadeBy | MadeInPasses | None
    species: str | None
    status: str | None

    @property
    def conditions(self) -> tuple[FoundCondition, ...]:
        """The conditions of all maps."""
        return tuple(c for _, conditions in self.maps for c in conditions)

    @property
    def own(self) -> list[str]:
        """Branches that hold the track itself."""
        inputs = [name for condition in self.conditions for name in condition.inputs]
        return [*dict.fromkeys(inputs), *([self.status] if self.status else [])]

    @property
    def others(self) -> list[str]:
        """Branches that say of which species or bundle a track is."""
        chosen = self.made_by.branches.values() if self.made_by else ()
        return [*([self.species] if self.species else []), *chosen]

    def places(
        self, rows: Mapping[str, Any], *, is_signed: bool
    ) -> tuple[IntArray, FloatArray, dict[str, int]]:
        """Return the bin (n,) of each row, -1 without an efficiency, and counts.

        Between them are the distances (n_axes, n) of rows from the mean of the
        reference in their bin.
        """
        n = len(next(iter(rows.values())))
        place = np.full(n, -1, dtype=np.int64)
        offsets = np.zeros((max(len(part.map.binning) for part, _ in self.maps), n))
        counts: Counter[str] = Counter({"rows": n, "other_species": 0})
        which: IntArray = np.zeros(n, dtype=np.int64)
        if self.made_by is not None:
            which = self.made_by.maps_of(rows)
            counts["other_species"] = int(np.count_nonzero(~is_usable(which)))
            counts["no_targets"] = int(np.count_nonzero(which == NOT_MADE))
        for number, (part, conditions) in enumerate(self.maps):
            mine = np.flatnonzero(which == number)
            own = {name: rows[name][mine] for name in (*self.own, *self.others)}
            columns = {c.variable.name: c.evaluate(own) for c in conditions}
            bins = part.map.place(columns)
            left = np.ones(len(mine), dtype=np.bool_)
            losses = self._losses(part.map, own, columns, is_signed=is_signed)
            for why, lost in losses:
                counts[why] += int(np.count_nonzero(left & lost))
                left &= ~lost
            outside = left & (bins < 0)
            counts["outside_map"] += int(np.count_nonzero(outside))
            rest = {name: values[outside] for name, values in columns.items()}
            for name, lost_by in count_outside(rest, part.map.binning).items():
                counts[f"outside_map, {name}"] += lost_by
            place[mine] = np.where(left & (bins >= 0), bins + part.bins.start, -1)
            found = offsets_of(part.map, columns, bins)
            offsets[: len(found), mine] = found
        return place, offsets, dict(counts)

    def _losses(
        self,
        efficiency_map: EfficiencyMap,
        rows: Mapping[str, Any],
        columns: Mapping[str, Any],
        *,
        is_signed: bool,
    ) -> Iterator[tuple[str, BoolArray]]:
        """Yield why rows (n,) may have no efficiency, and which ones have none."""
        n = len(next(iter(columns.values())))
        none = np.zeros(n, dtype=np.bool_)
        pdgid = int(efficiency_map.metadata["pdgid"])
        if self.species is None:
            yield "other_species", none
        else:
            yield (
                "other_species",
                ~is_species(rows[self.species], pdgid, is_signed=is_signed),
            )
        if self.status is None:
            yield "no_targets", none
        else:
            yield "no_targets", ~has_targets(rows[self.status])
        missing = [~np.isfinite(columns[name]) for name in efficiency_map.binning]
        yield "no_condition", np.any([none, *missing], axis=0)


def find_track_columns(track: str, proof: Proof, request: Any) -> TrackColumns:
    """Return where a tree holds a track, and add what it needs to the proof."""
    given, source, tree = request.maps[track], proof.source, proof.info
    told = Told(**{n: getattr(request, n) for n in Told.__dataclass_fields__})
    request = replace(request, **vars(told_of(proof, track, told)))
    status = f"{track}_pidgan_status{request.suffix}"
    found = TrackColumns(
        track=track,
        maps=tuple(
            (
                part,
                find_track_conditions(
                    track,
                    part.map,
                    source,
                    tree,
                    needed=list(part.map.binning),
                    conditions=request.conditions,
                ),
            )
            for part in parts_of(given)
        ),
        made_by=None,
        species=f"{track}_{request.species_from}" if request.species_from else None,
        status=status if status in tree.branches and not is_table(given) else None,
    )
    check_numbers([*found.own, *found.others], tree, source, track)
    if is_table(given):
        return found
    proof.require(
        track,
        given,
        [found.status] if found.status else (),
        conditions=found.conditions,
        species_from=request.species_from,
    )
    if proof.lacking and not request.trust:
        return found  # All that is lacking is told at once.
    where = f"{source}, {track}"
    return replace(found, made_by=find_made_by(where, proof.own[track], given))
