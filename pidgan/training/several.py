"""One training by several processes on this machine, which share each of its steps."""

import importlib
import socket
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pidgan.errors import TrainingError
from pidgan.files.processes import Processes, may_start_processes
from pidgan.progress import tell_elsewhere
from pidgan.sample.dataset import Dataset
from pidgan.training.joining import CANNOT_JOIN, Place, join

if TYPE_CHECKING:
    from pidgan.training.model import Model

HOST = "127.0.0.1"
TRIES = 3  # another program may take an address before a process has it


def train_in_processes(
    dataset: Dataset | str | Path,
    processes: int,
    *,
    progress: Any,
    callbacks: Sequence[Any],
    **given: Any,
) -> "Model":
    """Train as `train` does with the other arguments; return the model.

    Raises:
        ValueError: There are callbacks, which the networks of this process would need.
        TrainingError: A process ended, or processes cannot be started.
    """
    if callbacks:
        raise ValueError(
            f"give callbacks or {processes} processes, not both: callbacks are called "
            "where the networks are; `progress` may be a function"
        )
    if not may_start_processes():
        raise TrainingError(
            "new processes would run this script again: put what it does under "
            "`if __name__ == '__main__':`"
        )
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if isinstance(dataset, Dataset):
            dataset.save(place / "dataset")
            dataset = place / "dataset"
        for left in reversed(range(TRIES)):
            try:
                _train(dataset, processes, place / "model", progress, given)
                break
            except TrainingError as error:
                if not left or CANNOT_JOIN not in str(error):
                    raise
        from pidgan.training.model import open_model

        return cast("Model", open_model(place / "model"))


def _train(
    dataset: str | Path,
    processes: int,
    output: Path,
    progress: Any,
    given: Mapping[str, Any],
) -> None:
    addresses = _free_addresses(processes)
    names = [f"{rank}" for rank in range(processes)]
    hear = progress if callable(progress) else None
    own = {**given, "progress": tell_elsewhere if hear else bool(progress)}
    calls = {
        name: partial(_train_as, Place(addresses, rank), dataset, output, own)
        for rank, name in enumerate(names)
    }
    with Processes(names, show=bool(progress), named=False, hear=hear) as them:
        them.call(calls)


def _train_as(
    place: Place,
    dataset: str | Path,
    output: Path,
    given: Mapping[str, Any],
) -> None:
    """Train as one of several processes, of which the first one tells and writes."""
    join(place)
    leads = place.rank == 0
    with warnings.catch_warnings():
        if not leads:
            warnings.simplefilter("ignore")
            given = {**given, "progress": False}
        # Tensorflow is loaded here, and the loop, which asks for this module.
        loop = importlib.import_module("pidgan.training.loop")
        model = loop.train(dataset, **given)
    if leads:
        model.save(output)


def _free_addresses(n: int) -> tuple[str, ...]:
    """Return addresses of this machine that nobody listens at now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind((HOST, 0))
        return tuple(f"{HOST}:{one.getsockname()[1]}" for one in sockets)
