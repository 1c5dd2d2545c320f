"""Simulated tracks: species, charge, event numbers and the branches of a probe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arrays import AnyArray, FloatArray, IntArray
from pidgan.errors import nearest
from pidgan.simulation.detector import PDG_IDS

SPECIES = {
    "pi+": 0,
    "pi-": 0,
    "K+": 1,
    "K-": 1,
    "p": 2,
    "p~": 2,
    "mu+": 3,
    "mu-": 3,
    "e+": 4,
    "e-": 4,
}
"""Index into `HYPOTHESES` of each particle name (names of the package `particle`)."""

Branches = dict[str, AnyArray]


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """True tracks (n,): index into `HYPOTHESES`, p in MeV, eta, tracks of the event."""

    species: AnyArray
    p: AnyArray
    eta: AnyArray
    n_tracks: AnyArray

    def take(self, rows: Any) -> "Tracks":
        """Return some of the tracks."""
        return Tracks(
            species=self.species[rows],
            p=self.p[rows],
            eta=self.eta[rows],
            n_tracks=self.n_tracks[rows],
        )


def true_ids(species: AnyArray, charge: AnyArray) -> IntArray:
    """Return the PDG identifiers (n,) of species with the given charges."""
    return np.asarray(PDG_IDS[species] * charge, dtype=np.int32)


def draw_charges(n: int, *, rng: np.random.Generator) -> IntArray:
    """Draw charges (n,) of +1 and -1, equally often."""
    return np.where(rng.random(n) < 0.5, np.int32(1), np.int32(-1))


def draw_event_numbers(
    n: int, runs: tuple[int, int], *, rng: np.random.Generator
) -> Branches:
    """Draw `runNumber`, between two runs, and `eventNumber`, (n,) each."""
    return {
        "runNumber": rng.integers(*runs, n, dtype=np.uint32, endpoint=True),
        "eventNumber": rng.integers(1, 2**40, n, dtype=np.uint64),
    }


def probe_branches(
    p: FloatArray,
    eta: FloatArray,
    *,
    charge: IntArray,
    others: Mapping[str, AnyArray],
    response: Mapping[str, AnyArray],
    ids: IntArray,
) -> Branches:
    """Return the branches (n,) of a calibration sample without background."""
    return {
        "probe_P": p,
        "probe_PT": p / np.cosh(eta),
        "probe_ETA": eta,
        "probe_trackcharge": charge,
        **others,
        **{f"probe_{name}": value for name, value in response.items()},
        "probe_TRUEID": ids,
    }


def in_chunks(
    respond: Callable[..., Branches], columns: Sequence[AnyArray], *, size: int
) -> Branches:
    """Return the response to columns, computed for `size` tracks at a time."""
    parts = [
        respond(*(column[start : start + size] for column in columns))
        for start in range(0, len(columns[0]), size)
    ]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def check_species(species: str, known: Sequence[str]) -> None:
    """Raise a ValueError if a species is not among those known."""
    if species not in known:
        raise ValueError(f"unknown species {species!r}{nearest(species, known)}")


def check_number(n: int, things: str) -> None:
    """Raise a ValueError if the number of things to simulate is not positive."""
    if n < 1:
        raise ValueError(f"n is {n}, expected a positive number of {things}")


def checked_columns(
    columns: Mapping[str, tuple[ArrayLike, float, float]],
) -> list[FloatArray]:
    """Return columns (n,), given with their smallest and largest values allowed."""
    arrays: list[FloatArray] = [
        np.asarray(values, dtype=np.float64) for values, *_ in columns.values()
    ]
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1 or shapes[0] == (0,):
        *names, last = columns
        raise ValueError(
            f"{', '.join(names)} and {last} have shapes "
            f"{', '.join(map(str, shapes))}, expected one dimension, equal lengths and "
            "at least one track"
        )
    for array, (name, (_, low, high)) in zip(arrays, columns.items(), strict=True):
        if not np.all((array >= low) & (array <= high)):
            raise ValueError(
                f"{name} has values from {array.min():g} to {array.max():g}, expected "
                f"values between {low:g} and {high:g}"
            )
    return arrays
