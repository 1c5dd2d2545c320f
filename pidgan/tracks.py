"""One track of an analysis ntuple: its generators, conditions and new branches.

`open_generators` finds the bundles of a track, `plan_track` the branches that hold
their conditions in one tree, and `generate_branches` turns a chunk of these into the
targets and the status of the track. Files are the business of `pidgan.application`.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan.bundle import open_bundle
from pidgan.card import Generator
from pidgan.cuts import parse_cut
from pidgan.errors import NtupleError, nearest
from pidgan.mapping import Condition, find_conditions
from pidgan.noise import column_keys, entry_keys, keyed_normal
from pidgan.ntuple import Source

Track: TypeAlias = str | Path | Generator
"""A bundle, a directory of bundles, or an open generator."""

OUTSIDE_RANGE = np.int8(1)
"""Status bit: a condition lies outside the trained range; targets are generated."""

MISSING = np.int8(2)
"""Status bit: a condition is NaN or infinite; targets are NaN."""

NO_BUNDLE = np.int8(4)
"""Status bit: there is no bundle for the species; targets are NaN."""

OUTSIDE_FIDUCIAL = np.int8(8)
"""Status bit: the fiducial cut of the sample fails; targets are generated."""

STATUS_BITS = {
    "outside_range": OUTSIDE_RANGE,
    "missing_condition": MISSING,
    "no_bundle": NO_BUNDLE,
    "outside_fiducial": OUTSIDE_FIDUCIAL,
}

NOISE_ROWS = 65_536
"""Rows generated at a time: bounds the memory that the noise takes."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A generator of a track, and the PDG id whose entries it serves."""

    generator: Generator
    pdg_id: int
    where: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TrackPlan:
    """A track in one tree: its generators with their conditions there."""

    name: str
    options: tuple[Option, ...]
    conditions: tuple[tuple[Condition, ...], ...]
    species: str | None
    targets: tuple[str, ...]
    key: tuple[str, ...]
    suffix: str

    @property
    def status(self) -> str:
        """Name of the status branch."""
        return f"{self.name}_pidgan_status{self.suffix}"

    @property
    def identity(self) -> tuple[str, ...]:
        """Branches whose values make the noise key; empty if entries are numbered."""
        if not self.key:
            return ()
        own = [key.replace("{track}", self.name) for key in self.key]
        if own != list(self.key):
            return tuple(own)
        return tuple(dict.fromkeys([*own, *self.inputs]))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Branches that hold conditions, in the order of their conditions' names."""
        found = {
            (condition.variable.name, name): name
            for conditions in self.conditions
            for condition in conditions
            for name in condition.inputs
        }
        return tuple(dict.fromkeys(found[place] for place in sorted(found)))

    @property
    def types(self) -> dict[str, np.dtype[Any]]:
        """The new branches with their types, the status last."""
        types: dict[str, np.dtype[Any]] = {
            self.branch(target): np.dtype(np.float32) for target in self.targets
        }
        return types | {self.status: np.dtype(np.int8)}

    @property
    def mapping(self) -> dict[str, str]:
        """Where each condition is found, to be read."""
        return {c.variable.name: str(c) for found in self.conditions for c in found}

    @property
    def needed(self) -> tuple[str, ...]:
        """Branches to read."""
        extra = () if self.species is None else (self.species,)
        return tuple(dict.fromkeys([*self.inputs, *self.identity, *extra]))

    def branch(self, target: str) -> str:
        """Return the name of the branch of a target."""
        return f"{self.name}_{target}{self.suffix}"


def open_generators(
    track: str, given: Track, species_from: str | None
) -> tuple[Option, ...]:
    """Open the generators of a track.

    Args:
        track: its prefix, for messages.
        given: what `apply` was given for it.
        species_from: as for `apply`; a directory of bundles needs it.
    """
    if not isinstance(given, str | Path):
        return (_described(given, getattr(given, "path", type(given).__name__)),)
    path = Path(given)
    if not path.is_dir():
        return (_described(open_bundle(path), path),)
    if species_from is None:
        raise NtupleError(
            f"{track}: {path} is a directory of bundles; say which branch holds the "
            "PDG id, --species-from TRUEID, or name one bundle"
        )
    paths = sorted(path.glob("*.onnx"))
    if not paths:
        raise NtupleError(f"{track}: {path} holds no bundle (*.onnx)")
    options = tuple(_described(open_bundle(file), file) for file in paths)
    _check_unambiguous(track, options)
    return options


def plan_track(
    track: str,
    options: tuple[Option, ...],
    source: Source,
    present: Mapping[str, str],
    *,
    branches: Mapping[str, str],
    units: Mapping[str, str],
    species_from: str | None,
    key: Sequence[str],
    suffix: str,
) -> TrackPlan:
    """Return what a track gets in one tree; arguments as those of `apply`.

    Raises:
        NtupleError: a branch that is needed is missing.
    """
    conditions = tuple(
        find_conditions(
            option.generator.card.conditions,
            track,
            source,
            present,
            branches=branches,
            units=units,
        )
        for option in options
    )
    targets = (name for o in options for name in o.generator.card.target_names)
    plan = TrackPlan(
        name=track,
        options=options,
        conditions=conditions,
        species=None if species_from is None else f"{track}_{species_from}",
        targets=tuple(dict.fromkeys(targets)),
        key=tuple(key),
        suffix=suffix,
    )
    for name in plan.needed:
        if name not in present:
            raise NtupleError(
                f"{source} has no branch {name!r}, needed for {track}"
                f"{nearest(name, present)}"
            )
    return plan


def generate_branches(
    track: TrackPlan, frame: pd.DataFrame, *, seed: int, start: int
) -> dict[str, npt.NDArray[Any]]:
    """Return the new branches of a track for a chunk that starts at an entry."""
    entries = len(frame)
    targets = {
        target: np.full(entries, np.nan, dtype=np.float32) for target in track.targets
    }
    status = np.zeros(entries, dtype=np.int8)
    if track.identity:
        identity = [frame[name].to_numpy() for name in track.identity]
        keys = column_keys(identity, seed=seed)
    else:
        keys = entry_keys(
            seed=seed, track=track.name, start=start, stop=start + entries
        )
    served = np.zeros(entries, dtype=np.bool_)
    for option, conditions in zip(track.options, track.conditions, strict=True):
        rows = _rows_of(option, track, frame)
        served[rows] = True
        values = np.column_stack([c.evaluate(frame) for c in conditions])
        for first in range(0, len(rows), NOISE_ROWS):
            part = rows[first : first + NOISE_ROWS]
            x = values[part]
            usable, flags = _judge(option.generator, x)
            status[part] |= flags
            part = part[usable]
            noise = keyed_normal(keys[part], n_noise=option.generator.card.n_noise)
            y = option.generator.generate(x[usable], noise)
            for i, target in enumerate(option.generator.card.target_names):
                targets[target][part] = y[:, i]
    status[~served] |= NO_BUNDLE
    columns: dict[str, npt.NDArray[Any]] = {
        track.branch(target): column for target, column in targets.items()
    }
    return columns | {track.status: status}


def _described(generator: Generator, where: str | Path) -> Option:
    """Return a generator with its species and hash."""
    text = generator.card.to_json()
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Option(
        generator=generator,
        pdg_id=_pdg_id(generator.card.species),
        where=str(where),
        sha256=getattr(generator, "sha256", digest),
    )


@functools.cache
def _pdg_id(species: str) -> int:
    """Return the PDG id of a name; the smallest, as a proton is a nucleus too."""
    from particle import Particle

    # Full names (`K+`) are slow to make: only for what starts like the species.
    alike = (p for p in Particle.all() if species.startswith(p.pdg_name))
    found = [int(particle.pdgid) for particle in alike if particle.name == species]
    if not found:
        raise NtupleError(f"species {species!r} is no particle's PDG name")
    return min(found, key=abs)


def _check_unambiguous(track: str, options: Sequence[Option]) -> None:
    """Raise if several bundles of a directory serve the same species."""
    by_species: dict[int, list[Option]] = {}
    for option in options:
        by_species.setdefault(abs(option.pdg_id), []).append(option)
    for found in by_species.values():
        signs = {option.pdg_id for option in found}
        if len(found) > 1 and len(signs) < len(found):
            listed = "; ".join(
                f"{option.where} {option.generator.card.sample.data_taking}"
                for option in found
            )
            raise NtupleError(
                f"{track}: several bundles for {found[0].generator.card.species}, "
                f"expected one: {listed}; name one bundle, or put those of one period, "
                "polarity and tuning in a directory of their own"
            )


def _rows_of(
    option: Option, track: TrackPlan, frame: pd.DataFrame
) -> npt.NDArray[np.int64]:
    """Return the rows of a chunk that a generator serves."""
    if track.species is None:
        return np.arange(len(frame), dtype=np.int64)
    ids = frame[track.species].to_numpy()
    both_signs = sum(abs(o.pdg_id) == abs(option.pdg_id) for o in track.options) > 1
    chosen = ids == option.pdg_id if both_signs else np.abs(ids) == abs(option.pdg_id)
    return np.flatnonzero(chosen)


def _judge(
    generator: Generator, x: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int8]]:
    """Return which rows of conditions can be used, and the status bits of all rows."""
    card = generator.card
    usable: npt.NDArray[np.bool_] = np.asarray(np.isfinite(x).all(axis=1))
    flags = np.zeros(len(x), dtype=np.int8)
    flags[~usable] |= MISSING
    outside = np.zeros(len(x), dtype=np.bool_)
    for variable, values in zip(card.conditions, x.T, strict=True):
        low, high = np.array(variable.range, dtype=np.float32)
        sentinel = np.isin(values, np.array(variable.sentinels, dtype=np.float32))
        outside |= ((values < low) | (values > high)) & ~sentinel
    flags[usable & outside] |= OUTSIDE_RANGE
    if card.sample.fiducial:
        cut = parse_cut(card.sample.fiducial, names=card.condition_names)
        columns = dict(zip(card.condition_names, x.T, strict=True))
        flags[usable & ~cut.passes(columns, None)] |= OUTSIDE_FIDUCIAL
    return usable, flags
