"""Columns that choose a bundle for each row, read before anything is written.

Whoever applies a collection learns at once of rows that no bundle serves. The columns
tell too which bundles a tree needs: of the others, no condition has to be there.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.application.generators import TrackGenerators
from pidgan.application.one_track import TrackPlan
from pidgan.application.several_tracks import lay_out
from pidgan.arrays import BoolArray
from pidgan.bundle.choice import NOBODY
from pidgan.bundle.when import SPECIES, species_text
from pidgan.errors import NtupleError
from pidgan.files.tables import iterate_entries
from pidgan.files.trees import Source, TreeInfo

SCAN_ENTRIES = 1_000_000
"""Entries of a few columns that are read at a time."""

EXAMPLES = 3
"""Values without a bundle that a message names."""

Values = tuple[float | str, ...]
"""A value of each column of a choice."""


@dataclass(kw_only=True)
class Scan:
    """What the choosing columns of a track say, of one tree or of several.

    Attributes:
        rows: Rows that get targets, by the selection.
        served: Rows of each bundle, by its number.
        gaps: Rows that no bundle serves, by their values of the columns.
        others: Rows of species that the bundles do not have, by the PDG id.
        places: Where each of `gaps` was seen first.
    """

    rows: int = 0
    served: Counter[int] = field(default_factory=Counter)
    gaps: Counter[Values] = field(default_factory=Counter)
    others: Counter[int] = field(default_factory=Counter)
    places: dict[Values, str] = field(default_factory=dict)

    def add(self, other: "Scan") -> None:
        """Add the rows of another tree."""
        self.rows += other.rows
        self.served += other.served
        self.gaps += other.gaps
        self.others += other.others
        self.places = other.places | self.places


def needs_scan(generators: TrackGenerators) -> bool:
    """Return whether gaps of a choice are looked for: in collections only."""
    return generators.rules is not None and bool(generators.choice.columns)


def scan_track(
    plan: TrackPlan, generators: TrackGenerators, source: Source, tree: TreeInfo
) -> Scan:
    """Return what the choosing columns of a track in a tree say.

    The plan need not know the conditions of every bundle. An NtupleError says that a
    column holds numbers that are not whole.
    """
    found, choice = Scan(), generators.choice
    if tree.entries == 0:
        return found
    selection = () if plan.selection is None else plan.selection.names
    names = [*generators.branches.values(), *selection]
    # Without it, nothing would tell how many tracks an entry has.
    names += [name for name in plan.own if plan.read[name].shape][:1]
    names = list(dict.fromkeys(names))
    for arrays in iterate_entries(source, names, chunk=SCAN_ENTRIES):
        rows, _ = lay_out(arrays, names, plan.shape, where=plan.label)
        columns = {k: rows[branch] for k, branch in generators.branches.items()}
        if plan.selection is not None:
            chosen = plan.selection.passes(rows, None)
            columns = {name: values[chosen] for name, values in columns.items()}
        _check_whole(columns, generators.branches, plan.label)
        number = choice.find(columns)
        found.rows += len(number)
        counts = np.bincount(number - NOBODY, minlength=1)
        found.served.update({k: int(n) for k, n in enumerate(counts[1:]) if n})
        lost = number == NOBODY
        if lost.any():
            _add_lost(found, generators, columns, lost, str(source))
    return found


def _check_whole(
    columns: Mapping[str, npt.NDArray[Any]], branches: Mapping[str, str], where: str
) -> None:
    """Raise if a column holds numbers that are not whole; NaN is a gap."""
    for name, values in columns.items():
        if values.dtype.kind != "f":
            continue
        is_whole = np.isnan(values) | np.isfinite(values) & (values == np.rint(values))
        wrong = np.flatnonzero(~is_whole)
        if len(wrong):
            raise NtupleError(
                f"{where}: branch {branches[name]!r} chooses a bundle by {name}, but "
                f"holds {values[wrong[0]]:g}, expected whole numbers"
            )


def _add_lost(
    found: Scan,
    generators: TrackGenerators,
    columns: Mapping[str, npt.NDArray[Any]],
    lost: BoolArray,
    where: str,
) -> None:
    """Count rows without a bundle: gaps, and those of other species."""
    values = np.stack([own[lost].astype(np.float64) for own in columns.values()], 1)
    unique, counts = np.unique(values, axis=0, return_counts=True, equal_nan=True)
    at = list(columns).index(SPECIES) if SPECIES in columns else None
    for row, n in zip(unique.tolist(), counts.tolist(), strict=True):
        species = None if at is None else row[at]
        if (
            species is None
            or np.isnan(species)
            or generators.choice.names(SPECIES, species)
        ):
            # NaN is not equal to itself: a text is.
            key = tuple("nan" if np.isnan(value) else value for value in row)
            found.gaps[key] += n
            found.places.setdefault(key, where)
        else:
            found.others[int(species)] += n


def check_gaps(track: str, scan: Scan, generators: TrackGenerators) -> None:
    """Raise an NtupleError of rows that no bundle serves, unless they may be."""
    if generators.gaps or not scan.gaps:
        return
    names = generators.choice.columns
    examples = [
        f"{n} rows with {_text(names, key)} (first in {scan.places[key]})"
        for key, n in scan.gaps.most_common(EXAMPLES)
    ]
    more = len(scan.gaps) - len(examples)
    examples += [f"and {more} more combinations"] if more > 0 else []
    raise NtupleError(
        f"{track}: no bundle of the collection serves {scan.gaps.total()} of "
        f"{scan.rows} rows: {'; '.join(examples)}; add bundles, or allow NaN there, "
        'with gaps = "nan" in the collection or --gaps nan'
    )


def warn_texts(track: str, scan: Scan, generators: TrackGenerators) -> Iterator[str]:
    """Yield warnings of antiparticles that the bundles do not name."""
    for species, n in scan.others.items():
        if generators.choice.names(SPECIES, -species):
            named = [species_text(((own, own),)) for own in (species, -species)]
            yield (
                f"{track}: {n} rows are {named[0]}, which no bundle of the collection "
                "serves, and get NaN; if a bundle is for both charges, write species "
                f"= [{named[1]}, {named[0]}]"
            )


def _text(names: tuple[str, ...], key: Values) -> str:
    """Return values of columns as text."""
    parts = []
    for name, value in zip(names, key, strict=True):
        text: Any = value
        if not isinstance(value, str):
            whole = int(value)
            text = species_text(((whole, whole),)) if name == SPECIES else whole
        parts.append(f"{name} = {text}")
    return ", ".join(parts)
