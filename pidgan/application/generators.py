"""The generators of a track, and which of them serves a row."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pidgan.application.names import own_name, with_track
from pidgan.application.request import Track
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.card import Generator
from pidgan.bundle.choice import Choice, When
from pidgan.bundle.collection import SUFFIX, Collection, check_overlap
from pidgan.bundle.when import SPECIES
from pidgan.errors import NtupleError
from pidgan.files.machine import available_cores
from pidgan.sample.species import pdg_id


@dataclass(frozen=True, kw_only=True)
class TrackGenerator:
    """A generator of a track, and by column the values of the rows that it serves."""

    generator: Generator
    when: When
    where: str
    sha256: str

    @property
    def outputs(self) -> dict[str, slice | None]:
        """What becomes a branch: each target, or the cells of each view of showers."""
        card = self.generator.card
        if card.sample.cells is None:
            return dict.fromkeys(card.target_names)
        return dict(card.sample.cells.layout.view_slices)

    def description(self) -> dict[str, str]:
        """Return what a summary and a manifest say of it."""
        species = self.generator.card.species
        return {"path": self.where, "species": species, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class TrackGenerators:
    """The generators of a track, and the columns that choose among them.

    Attributes:
        members: The generators, numbered from 0.
        choice: Which of them serves a row.
        branches: Branch of each column of the choice.
        gaps: Whether rows that none serves are allowed, and get NaN.
        rules: What a record says of the choice, if it comes from a collection.
    """

    members: tuple[TrackGenerator, ...]
    choice: Choice
    branches: Mapping[str, str] = field(default_factory=dict)
    gaps: bool = False
    rules: Mapping[str, Any] | None = None

    def run_self_tests(self, used: Iterable[int]) -> None:
        """Run the self-tests of the bundles that are used, once for each."""
        found = [self.members[number].generator for number in sorted(set(used))]
        bundles = [one for one in found if isinstance(one, Bundle)]
        with ThreadPoolExecutor(available_cores()) as pool:
            for _ in pool.map(lambda bundle: bundle.run_self_test(), bundles):
                pass

    @property
    def hashes(self) -> list[str]:
        """The sha256 of each generator."""
        return [one.sha256 for one in self.members]


Generators: TypeAlias = Mapping[str, TrackGenerators]
"""The generators of each track."""


def open_generators(
    track: str, given: Track, species_from: str | None, gaps: str | None = None
) -> TrackGenerators:
    """Open the generators of a track; a directory of bundles needs `species_from`.

    `gaps` says what happens to rows without a generator, if not a collection does. An
    NtupleError or BundleError tells which file is refused, or that several generators
    serve the same rows.
    """
    if isinstance(given, str | Path) and Path(given).suffix.lower() == SUFFIX:
        given = Collection.open(given)
    # One on a server has no file, but what a collection has.
    if hasattr(given, "open_bundles"):
        return _of_collection(track, given, species_from, gaps)
    opened: list[tuple[Generator, str | Path]]
    if not isinstance(given, str | Path):
        opened = [(given, _place(given))]
    elif not (path := Path(given)).is_dir():
        opened = [(open_bundle(path), path)]
    else:
        if species_from is None:
            raise NtupleError(
                f"{track}: {path} is a directory of bundles; say which branch holds "
                "the PDG id, --species-from TRUEID, or name one bundle"
            )
        opened = [(open_bundle(file), file) for file in sorted(path.glob("*.onnx"))]
        if not opened:
            raise NtupleError(f"{track}: {path} holds no bundle (*.onnx)")
    ids = [pdg_id(generator.card.species) for generator, _ in opened]
    for own in ids:
        if ids.count(own) > 1:
            same = [one for one, other in zip(opened, ids, strict=True) if other == own]
            listed = "; ".join(f"{p} {g.card.sample.data_taking}" for g, p in same)
            raise NtupleError(
                f"{track}: several bundles for {same[0][0].card.species}, "
                f"expected one: {listed}; name one bundle, or make a collection that "
                "chooses by period and polarity, `pidgan collect`"
            )
    members = tuple(
        TrackGenerator(
            generator=generator,
            when={SPECIES: _both_signs(own, ids)},
            where=str(where),
            sha256=generator_hash(generator),
        )
        for own, (generator, where) in zip(ids, opened, strict=True)
    )
    is_chosen = species_from is not None
    return TrackGenerators(
        members=members,
        choice=_choice(members, (SPECIES,) if is_chosen else ()),
        branches={SPECIES: own_name(track, species_from)} if species_from else {},
    )


def _place(generator: Generator) -> str | Path:
    """Return where a generator comes from: a path, an address, else its type."""
    for name in ("path", "address"):
        if place := getattr(generator, name, None):
            return str(place)
    return type(generator).__name__


def _of_collection(
    track: str, given: Any, species_from: str | None, gaps: str | None
) -> TrackGenerators:
    """Open the generators of a collection."""
    content = given.content
    named = {k: with_track(v, track) for k, v in content.choose.items()}
    if species_from is not None:
        named[SPECIES] = own_name(track, species_from)
    bundles = given.open_bundles(verify=False)
    ids = [pdg_id(bundle.card.species) for bundle in bundles]
    members = tuple(
        TrackGenerator(
            generator=bundle,
            # Both charges, if the file names no species.
            when={SPECIES: _both_signs(own, ids), **member.when},
            where=str(bundle.path) if bundle.address is None else bundle.address,
            sha256=bundle.sha256,
        )
        for own, bundle, member in zip(ids, bundles, given.members, strict=True)
    )
    choice = _choice(members, tuple(named))
    try:
        check_overlap(choice, [member.file for member in given.members])
    except ValueError as error:
        hint = "" if SPECIES in named else "; give --species-from, or choose.species"
        raise NtupleError(f"{track}: {given.path}: {error}{hint}") from None
    return TrackGenerators(
        members=members,
        choice=choice,
        branches=named,
        gaps=(gaps or content.gaps) == "nan",
        rules=given.rules(),
    )


def _both_signs(own: int, ids: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return a species, with its antiparticle unless that has a generator."""
    return ((own, own),) if -own in ids else ((own, own), (-own, -own))


def _choice(members: Sequence[TrackGenerator], columns: tuple[str, ...]) -> Choice:
    return Choice(columns=columns, when=tuple(one.when for one in members))


def generator_hash(generator: Generator) -> str:
    """Return the sha256 of a bundle; of the card of a generator that is none."""
    found = getattr(generator, "sha256", None)
    return str(found or hashlib.sha256(generator.card.to_json().encode()).hexdigest())
