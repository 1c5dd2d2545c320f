"""Checkpoints: the state and the arrays of a training, in one file."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.errors import TrainingError
from pidgan.files.seals import SEAL, add_arrays, check_seal, reason, sealed
from pidgan.files.tables import read_arrays
from pidgan.files.writing import writing_file
from pidgan.training.budget import Budget, Duration
from pidgan.training.pace import Pace

# Layout of checkpoints. Earlier ones, without this number, hold other averages.
FORMAT = 2


def write_checkpoint(
    path: Path, state: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    """Write a checkpoint in one piece, in place of an earlier one."""
    content = {"format": FORMAT, **state, "arrays": _hash(arrays)}
    text = json.dumps(sealed(content))
    with writing_file(path, overwrite=True) as temporary:
        np.savez(temporary, state=np.array(text), **arrays)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return state and arrays of a checkpoint, which are those that it was saved with.

    Raises:
        TrainingError: The checkpoint is damaged, or of another version.
    """
    try:
        arrays = read_arrays(path)
        state = json.loads(str(arrays.pop("state")))
        is_known = isinstance(state, dict) and isinstance(state.get("settings"), dict)
        if not is_known:
            raise ValueError("no state of a training in it")
        # Version 0.1 wrote no hashes.
        if {"format", "arrays", SEAL} & set(state):
            check_seal(state)
            if state["arrays"] != _hash(arrays):
                raise ValueError("its arrays are not those of its state")
    # What is no whole file of arrays may raise whatever there is.
    except Exception as error:
        raise TrainingError(f"{path} is damaged ({reason(error)})") from error
    if state.get("format") != FORMAT:
        raise TrainingError(
            f"{path} is of another version of this package, with format "
            f"{state.get('format', 1)!r}, expected {FORMAT}: train anew"
        )
    return state, arrays


def mark_of(path: Path | None) -> tuple[int, ...] | None:
    """Return what tells whether a file was replaced, None if there is no file."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)


def _hash(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    add_arrays(digest, arrays)
    return digest.hexdigest()


def check_length(
    checkpoint: Path,
    own: tuple[Pace, Budget | None],
    *,
    wanted: tuple[Pace | None, Duration | None],
) -> None:
    """Raise if a training that is continued is to have another length.

    Learning rates and phases follow the number of all steps: a training that went on to
    another number would end with a schedule that nobody asked for.
    """
    (pace, budget), (new_pace, new_budget) = own, wanted
    mine, asked = f"{pace.text} steps", None
    if budget is not None:
        mine = f"a budget of {budget.duration.text()}, which gave {mine}"
    if new_budget is not None and (budget is None or new_budget != budget.duration):
        asked = f"a budget of {new_budget.text()}"
    if new_pace is not None and new_pace != pace:
        asked = f"{new_pace.text} steps"
    if asked is not None:
        raise TrainingError(
            f"{checkpoint} belongs to a training with {mine}, now {asked}: "
            "continue without a number of steps or a budget, or train anew"
        )
