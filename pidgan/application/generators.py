"""The generators of a track: one bundle, or the bundles of a directory by species."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pidgan.application.request import Track
from pidgan.arrays import BoolArray, IntArray
from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.card import Generator
from pidgan.errors import NtupleError
from pidgan.sample.species import pdg_id


@dataclass(frozen=True, kw_only=True)
class TrackGenerator:
    """A generator of a track, and the species (or both signs of it) that it serves."""

    generator: Generator
    pdg_id: int
    both_signs: bool
    where: str
    sha256: str

    def serves(self, ids: IntArray) -> BoolArray:
        """Return which entries (n,) it serves, from their PDG ids."""
        if self.both_signs:
            return np.asarray(np.abs(ids) == abs(self.pdg_id))
        return np.asarray(ids == self.pdg_id)

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


def open_generators(
    track: str, given: Track, species_from: str | None
) -> tuple[TrackGenerator, ...]:
    """Open the generators of a track; a directory of bundles needs `species_from`."""
    if not isinstance(given, str | Path):
        where = getattr(given, "path", type(given).__name__)
        return _described([(given, where)])
    path = Path(given)
    if not path.is_dir():
        return _described([(open_bundle(path), path)])
    if species_from is None:
        raise NtupleError(
            f"{track}: {path} is a directory of bundles; say which branch holds the "
            "PDG id, --species-from TRUEID, or name one bundle"
        )
    paths = sorted(path.glob("*.onnx"))
    if not paths:
        raise NtupleError(f"{track}: {path} holds no bundle (*.onnx)")
    found = _described([(open_bundle(file), file) for file in paths])
    _check_unambiguous(track, found)
    return found


def _described(
    opened: Sequence[tuple[Generator, str | Path]],
) -> tuple[TrackGenerator, ...]:
    """Return generators with their species and hashes."""
    ids = [pdg_id(generator.card.species) for generator, _ in opened]
    return tuple(
        TrackGenerator(
            generator=generator,
            pdg_id=own,
            both_signs=sum(abs(other) == abs(own) for other in ids) == 1,
            where=str(where),
            sha256=_hash(generator),
        )
        for own, (generator, where) in zip(ids, opened, strict=True)
    )


def _hash(generator: Generator) -> str:
    """Return the hash of a bundle, or of the card of another generator."""
    text = generator.card.to_json()
    return getattr(generator, "sha256", hashlib.sha256(text.encode()).hexdigest())


def _check_unambiguous(track: str, found: Iterable[TrackGenerator]) -> None:
    """Raise if several bundles of a directory serve the same species."""
    by_species: dict[int, list[TrackGenerator]] = {}
    for one in found:
        by_species.setdefault(abs(one.pdg_id), []).append(one)
    for same in by_species.values():
        if len(same) > len({one.pdg_id for one in same}):
            listed = "; ".join(
                f"{one.where} {one.generator.card.sample.data_taking}" for one in same
            )
            raise NtupleError(
                f"{track}: several bundles for {same[0].generator.card.species}, "
                f"expected one: {listed}; name one bundle, or put those of one period, "
                "polarity and tuning in a directory of their own"
            )
