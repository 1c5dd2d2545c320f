"""Toy bundles of several species, charges, polarities and years, and mixed rows."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from toy_generator import make_card, make_sample, toy_onnx, with_self_test

from pidgan.files.tables import write_trees

SPECIES = {321: ("K+", "K-"), 211: ("pi+", "pi-"), 2212: ("p", "p~")}
POLARITIES = {1: "up", -1: "down"}
YEARS = (2017, 2018)
ENTRIES = 6000


def write_bundle(
    path: Path, *, species: str, offset: float, second: str = "ETA", **taking: str
) -> Path:
    """A bundle whose targets are larger by `offset`, for some data taking.

    `second` is the name of its second condition.
    """
    sample = make_sample(species=species, data_taking=taking)
    card = make_card(species=species, sample=sample)
    first, other = card.conditions
    other = other.model_copy(
        update={"name": second, "patterns": (f"{{track}}_{second}",)}
    )
    card = card.model_copy(update={"conditions": (first, other)})
    card = with_self_test(card, offset=offset)
    path.write_bytes(toy_onnx(card, offset=offset))
    return path


def write_bundles(
    folder: Path, *, years: Sequence[int] = YEARS, species: Sequence[int] = (*SPECIES,)
) -> dict[tuple[int, int, int], Path]:
    """Bundles by PDG id, polarity and year; by default 24."""
    folder.mkdir()
    found: dict[tuple[int, int, int], Path] = {}
    for own, polarity, year in itertools.product(species, POLARITIES, years):
        for sign in (1, -1):
            name = SPECIES[own][0 if sign > 0 else 1]
            magnet = POLARITIES[polarity]
            found[sign * own, polarity, year] = write_bundle(
                folder / f"{name}_{magnet}_{year}.onnx",
                species=name,
                offset=float(len(found)),
                polarity=magnet,
                year=str(year),
                charge="+" if sign > 0 else "-",
            )
    return found


def rows(n: int = ENTRIES, *, seed: int = 1, **changes: Any) -> dict[str, Any]:
    """Rows of tracks `K` of all species, charges, polarities and years."""
    rng = np.random.default_rng(seed)
    content = {
        "K_P": rng.uniform(5e3, 9e4, n),
        "K_ETA": rng.uniform(2, 4.5, n).astype(np.float32),
        "K_TRUEID": rng.choice([s * i for i in SPECIES for s in (1, -1)], n).astype(
            np.int32
        ),
        "Polarity": rng.choice(list(POLARITIES), n).astype(np.int16),
        "year": rng.choice(YEARS, n).astype(np.int32),
        "runNumber": rng.integers(1000, 3000, n).astype(np.uint32),
        "eventNumber": np.arange(n, dtype=np.uint64),
    }
    return content | changes


def write_rows(path: Path, content: dict[str, Any]) -> Path:
    write_trees(path, {"T" if path.suffix == ".root" else "": content})
    return path


def write_collection(
    path: Path,
    choose: dict[str, str],
    bundles: Sequence[tuple[Path, str]],
    *,
    head: str = "",
) -> Path:
    """A collection written by hand: each bundle with its `when`."""
    import hashlib
    import os

    lines = ["schema = 1", head, "[choose]"]
    lines += [f'{name} = "{branch}"' for name, branch in choose.items()]
    for file, when in bundles:
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        lines += ["[[bundles]]", f'file = "{os.path.relpath(file, path.parent)}"']
        lines += [f'sha256 = "{sha256}"', f"when = {{{when}}}"]
    path.write_text("\n".join(lines))
    return path
