"""Checkpoints: the variables of an interrupted training, and what it was doing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.errors import TrainingError
from pidgan.files.tables import read_arrays
from pidgan.files.writing import writing_file

CHECKPOINT = "checkpoint.npz"


def save_checkpoint(
    path: Path | None, state: Mapping[str, Any], variables: Sequence[Any]
) -> None:
    """Write a checkpoint, replacing the last one in one step; None writes nothing."""
    if path is None:
        return
    arrays = {f"v{i}": v.numpy() for i, v in enumerate(variables)}
    with writing_file(path, overwrite=True) as temporary:
        np.savez(temporary, state=np.array(json.dumps(state)), **arrays)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the state of a training, and its variables for `restore`.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        arrays = read_arrays(path)
        state = json.loads(str(arrays.pop("state")))
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{path} is damaged ({error})") from error
    return state, arrays


def check_identity(
    path: Path, state: Mapping[str, Any], identity: Mapping[str, Any]
) -> None:
    """Refuse the checkpoint of another training.

    Raises:
        TrainingError: Something differs.
    """
    for key, mine in identity.items():
        if state.get(key) != mine:
            raise TrainingError(
                f"{path} is of another training: {key} was {state.get(key)!r}, now "
                f"{mine!r}"
            )


def restore(variables: Sequence[Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Give variables the values of a checkpoint."""
    for i, variable in enumerate(variables):
        variable.assign(arrays[f"v{i}"])
