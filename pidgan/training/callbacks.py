"""What is told of the losses of a training: callbacks of keras, and plain functions.

A callback of keras, such as `keras.callbacks.CSVLogger` or `TensorBoard`, gets an
"epoch" for each comparison on rows that are not trained on, numbered by the step. Its
logs have the losses of the training by name, and those on the other rows as "val_NAME".
A plain function gets the step and these losses.

The phases of a training have different losses. A CSV file has one head, so that the
file is begun again, with all rows so far, when a phase brings new names.
"""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pidgan.errors import PidganError, TrainingError
from pidgan.sample.definition import Sample
from pidgan.training.backend import keras

_JUDGED = "validation_"


class Callbacks:
    """The callbacks of one training, which has done some steps if it is resumed."""

    def __init__(self, given: Sequence[Any]) -> None:
        self._given = list(given)
        self._told = 0
        self._names: list[str] = []

    def begin(self) -> None:
        """Tell that the training begins."""
        for one in self._given:
            if hasattr(one, "on_train_begin"):
                # A callback of keras asks for a model, but the losses are given to it.
                model = keras.Sequential(name="generator")
                model.optimizer = None
                one.set_model(model)
                one.on_train_begin()

    def tell(self, history: Mapping[str, Sequence[float]]) -> None:
        """Tell the losses that came to a history since the last call."""
        names = [name for name in history if name != "step"]
        is_new = names != self._names
        self._names = names
        rows = [_row(history, i) for i in range(len(history["step"]))]
        for one in self._given:
            fresh = rows[self._told :]
            if isinstance(one, keras.callbacks.CSVLogger) and is_new:
                one.on_train_begin()
                fresh = rows
            for step, losses in fresh:
                _tell(one, step, losses)
        self._told = len(rows)

    def end(self) -> None:
        """Tell that the training has ended, or was stopped."""
        for one in self._given:
            if hasattr(one, "on_train_end"):
                one.on_train_end()


def check_callbacks(given: Sequence[Any], sample: Sample) -> None:
    """Raise a TypeError or PidganError for what is no callback, or cannot be used."""
    if given and sample.links:
        raise TrainingError(
            f"{sample.name!r} is a chain, whose links have losses of their own; "
            "callbacks are for the training of one link"
        )
    for one in given:
        is_class = isinstance(one, type)
        if is_class or not (callable(one) or hasattr(one, "on_epoch_end")):
            got = f"the class {one.__name__}" if is_class else type(one).__name__
            raise TypeError(
                f"callbacks has {got}, expected a function of step and losses, or a "
                "callback such as keras.callbacks.CSVLogger('losses.csv')"
            )
        if isinstance(one, keras.callbacks.CSVLogger) and one.append:
            raise ValueError(
                "callbacks has a CSVLogger with append=True, expected append=False: a "
                "training that is resumed writes all of its losses"
            )
        is_board = isinstance(one, keras.callbacks.TensorBoard)
        if is_board and importlib.util.find_spec("tensorboard") is None:
            raise PidganError(
                "the callback TensorBoard needs the package tensorboard; install it, "
                "or use keras.callbacks.CSVLogger"
            )


def _tell(one: Any, step: int, losses: Mapping[str, float]) -> None:
    if isinstance(one, keras.callbacks.CSVLogger):
        one.on_epoch_end(step, dict(losses))
        return
    known = {name: value for name, value in losses.items() if math.isfinite(value)}
    if hasattr(one, "on_epoch_end"):
        one.on_epoch_end(step, known)
    else:
        one(step, known)


def _row(
    history: Mapping[str, Sequence[float]], i: int
) -> tuple[int, dict[str, float]]:
    """Return a step and its losses by the names that keras uses."""
    losses = {
        name.replace(_JUDGED, "val_", 1) if name.startswith(_JUDGED) else name: v[i]
        for name, v in history.items()
        if name != "step"
    }
    return int(history["step"][i]), losses
