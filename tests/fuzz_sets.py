"""Mutants of maps, datasets, model folders, checkpoints and quantile maps.

Of each kind, `FOLDER/KIND` holds the folders "one" and "other", and perhaps "old", as
version 0.1 wrote it. A mutant of "one" is refused, or has the same numbers: damaged
bytes, an edited head, a file less, a file of the other set or under another name. A
head that was sealed again, as an attacker would, and a set of version 0.1, which has no
seal, may have other numbers; but they never end in anything but a `PidganError`.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import Judge, reason
from mutations import mutate_bytes, mutate_content

MARK = "\npidgan: "
ROWS = 32


def judges(folder: Path) -> dict[str, Judge]:
    """Return functions that make and judge a mutant of each kind in the folder."""
    return {
        kind: _judge(folder / kind, opened)
        for kind, opened in OPENED.items()
        if (folder / kind).is_dir()
    }


def _judge(base: Path, opened: Callable[[Path], Any]) -> Judge:
    from pidgan.errors import PidganError

    expected, of_other = opened(base / "one"), opened(base / "other")
    old = [base / "old"] if (base / "old").is_dir() else []

    def judge(rng: random.Random) -> str:
        place = base / "mutant"
        shutil.rmtree(place, ignore_errors=True)
        source = rng.choice([*[base / "one"] * 4, *old])
        shutil.copytree(source, place)
        is_sealed = source.name == "one" and damage(place, base / "other", rng)
        if source.name == "old":
            damage(place, base / "other", rng)
        try:
            found = opened(place)
        except PidganError as error:
            return f"refused: {reason(error, place)}"
        if found in (expected, of_other):
            return "same" if found == expected else "the other"
        return "FAILED: other numbers" if is_sealed else "another"

    return judge


def damage(place: Path, other: Path, rng: random.Random) -> bool:
    """Damage a set in one to three ways; return whether its seal should tell."""
    is_sealed = True
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        files = sorted(path for path in place.iterdir() if path.stat().st_size)
        if not files:
            break
        file = rng.choice(files)
        head = next((path for path in files if path.suffix == ".json"), None)
        match rng.randrange(8):
            case 0:
                file.unlink()
            case 1 if (other / file.name).exists():
                shutil.copy(other / file.name, file)
            case 2:
                shutil.copy(rng.choice(files), place / "copy")
                (place / "copy").rename(file)
            case 3 | 4 if head is not None:
                mutate_head(head, rng, seal=False)
            case 5 if head is not None:
                is_sealed &= not mutate_head(head, rng, seal=True)
            case _:
                file.write_bytes(mutate_bytes(file.read_bytes(), rng))
    return is_sealed


def mutate_head(path: Path, rng: random.Random, *, seal: bool) -> bool:
    """Put something odd into a head, and perhaps seal it; return whether it could."""
    from pidgan.files.seals import SEAL, sealed

    try:
        content = json.loads(path.read_text())
        title, mark, text = str(content.get("description")).partition(MARK)
        inner = json.loads(text) if mark else None
        if inner is not None and rng.random() < 0.7:
            inner = mutate_content(inner, rng)
        else:
            content = mutate_content(content, rng)
        if seal and inner is not None:
            parts = {**content, "description": title, "pidgan": inner}
            del inner[SEAL]
            inner[SEAL] = sealed(parts)[SEAL]
        elif seal:
            content = sealed(content)
        if inner is not None and "description" in content:
            content["description"] = f"{title}{MARK}{json.dumps(inner)}"
        path.write_text(json.dumps(content), encoding="utf-8")
    # It was no head any more: an earlier mutation left something else.
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return False
    return seal


def _map(place: Path) -> Any:
    from pidgan.efficiency.efficiency_map import EfficiencyMap

    found = EfficiencyMap.open(place / "map.json")
    found.frame()
    numbers = [found.nominal, found.error, found.covariance, found.raw_covariance]
    names = [found.cuts, list(found.binning.items()), list(found.variations)]
    [found.cut_index(cut) for cut in found.cuts]
    texts = [json.dumps([*names, found.metadata, found.aliases, found.names])]
    return texts + [array.tobytes() for array in numbers]


def _dataset(place: Path) -> Any:
    from pidgan.sample.dataset import PARTS, Dataset

    found = Dataset.open(place)
    found.text()
    frames = [found.frame(part) for part in PARTS]
    texts = [found.sample.to_json(), json.dumps(found.info), str(list(frames[0]))]
    return texts + [frame.to_numpy().tobytes() for frame in frames]


def _model(place: Path) -> Any:
    from pidgan.training.model import open_model

    found = open_model(place)
    n = len(found.card.conditions)
    x = np.outer(np.linspace(1, 2, ROWS), np.full(n, 5.0)).astype(np.float32)
    y = found.generate(x, np.zeros((ROWS, found.card.n_noise), np.float32))
    held_out = found.reference().to_numpy().tobytes()
    return [found.card.to_json(), json.dumps(found.history), y.tobytes(), held_out]


def _checkpoint(place: Path) -> Any:
    from pidgan.training.checkpoint import read_checkpoint

    state, arrays = read_checkpoint(place / "checkpoint.npz")
    return [json.dumps(state), *(array.tobytes() for array in arrays.values())]


def _quantiles(place: Path) -> Any:
    from pidgan.application.quantile_map import QuantileMap

    found = QuantileMap.open(place / "q.json")
    return found.evaluate(np.linspace(-1, 3, ROWS)).tobytes()


OPENED = {
    "map": _map,
    "dataset": _dataset,
    "model": _model,
    "checkpoint": _checkpoint,
    "quantiles": _quantiles,
}
