"""What `apply` is asked for, the same for every file, and the generators it names."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from pidgan.application.conditions import Conditions
from pidgan.arrays import BoolArray, IntArray
from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.card import Generator
from pidgan.errors import NtupleError
from pidgan.sample.species import pdg_id

Track: TypeAlias = str | Path | Generator
"""A bundle, a directory of bundles, or an open generator."""

Mode: TypeAlias = Literal["append", "replace", "friend"]

Elsewhere: TypeAlias = Literal["nan", "keep"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `apply` is asked for; the attributes are its arguments."""

    tracks: Mapping[str, Track]
    mode: Mode = "append"
    seed: int = 1
    species_from: str | None = None
    mother_from: str | None = None
    where: str | None = None
    elsewhere: Elsewhere = "nan"
    conditions: Conditions = field(default_factory=Conditions)
    suffix: str = ""
    key: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.tracks:
            raise ValueError("tracks is empty, expected at least one")
        for name, value, known in (
            ("mode", self.mode, get_args(Mode)),
            ("elsewhere", self.elsewhere, get_args(Elsewhere)),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, expected {' or '.join(known)}")
        if self.mother_from is not None and self.species_from is None:
            raise NtupleError("decays in flight are flagged only with --species-from")
        if self.elsewhere == "keep" and self.where is None:
            raise NtupleError("--elsewhere keep needs a selection, --where")
        if self.elsewhere == "keep" and self.mode == "append":
            raise NtupleError(
                "--elsewhere keep needs values to keep: --mode replace or --mode friend"
            )

    @property
    def paths(self) -> dict[str, str | Path | None]:
        """The bundle or directory of each track, None for another generator."""
        return {
            track: given
            if isinstance(given, str | Path)
            else getattr(given, "path", None)
            for track, given in self.tracks.items()
        }

    def record(self, hashes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Return what a manifest says was asked for, with the hashes of each track."""
        names = [f.name for f in fields(self) if f.name not in ("tracks", "conditions")]
        return {
            **{name: getattr(self, name) for name in names},
            **self.conditions.record(),
            "key": list(self.key),
            "tracks": {track: list(found) for track, found in hashes.items()},
            "pidgan": package_version("pidgan"),
        }


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
    """Open the generators of a track; a directory of bundles needs `species_from`.

    No two bundles of a directory may serve the same species.
    """
    opened: list[tuple[Generator, str | Path]]
    if not isinstance(given, str | Path):
        opened = [(given, getattr(given, "path", type(given).__name__))]
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
                f"expected one: {listed}; name one bundle, or put those of one period, "
                "polarity and tuning in a directory of their own"
            )
    return tuple(
        TrackGenerator(
            generator=generator,
            pdg_id=own,
            both_signs=sum(abs(other) == abs(own) for other in ids) == 1,
            where=str(where),
            sha256=generator_hash(generator),
        )
        for own, (generator, where) in zip(ids, opened, strict=True)
    )


def generator_hash(generator: Generator) -> str:
    """Return the sha256 of a bundle; of the card of a generator that is none."""
    found = getattr(generator, "sha256", None)
    return str(found or hashlib.sha256(generator.card.to_json().encode()).hexdigest())


def package_version(name: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
