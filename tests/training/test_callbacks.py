"""Callbacks of a training: CSV and TensorBoard by keras' own, and plain functions."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow")

import keras

import pidgan
from pidgan.errors import PidganError

GIVEN: dict[str, Any] = {"steps": 60, "seed": 3, "settings": {"xla": False}}


def _numbers(text: str) -> float:
    return float(text) if text else math.nan


def test_csv_and_function_have_the_losses_of_the_history(
    kaon_dataset: pidgan.Dataset, kaon_model: Any, tmp_path: Path
) -> None:
    told: list[tuple[int, dict[str, float]]] = []
    path = tmp_path / "losses.csv"
    callbacks = [
        keras.callbacks.CSVLogger(str(path)),
        lambda step, losses: told.append((step, losses)),
    ]
    model = pidgan.train(kaon_dataset, callbacks=callbacks, progress=False, **GIVEN)
    history = model.history
    assert model.history.keys() == kaon_model.history.keys()
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == history["step"]
    for name, values in history.items():
        if name == "step":
            continue
        key = name.replace("validation_", "val_")
        assert [_numbers(row[key]) for row in rows] == pytest.approx(
            values, nan_ok=True
        )
    assert [step for step, _ in told] == history["step"]
    for i, (_, losses) in enumerate(told):
        assert all(math.isfinite(value) for value in losses.values())
        known = [k for k, v in history.items() if k != "step" and math.isfinite(v[i])]
        assert losses.keys() == {k.replace("validation_", "val_") for k in known}


def test_tensorboard(kaon_dataset: pidgan.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = keras.callbacks.TensorBoard(str(tmp_path / "logs"), write_graph=False)
    pidgan.train(kaon_dataset, callbacks=[board], progress=False, **GIVEN)
    for part in ("train", "validation"):
        assert list((tmp_path / "logs" / part).glob("events.out.tfevents.*"))


def test_what_is_no_callback_is_named(
    kaon_dataset: pidgan.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong, problem in (
        (3, "callbacks has int, expected a function"),
        (keras.callbacks.CSVLogger, "callbacks has the class CSVLogger"),
    ):
        with pytest.raises(TypeError, match=problem):
            pidgan.train(kaon_dataset, callbacks=[wrong], **GIVEN)
    appending = keras.callbacks.CSVLogger("losses.csv", append=True)
    with pytest.raises(ValueError, match="expected append=False"):
        pidgan.train(kaon_dataset, callbacks=[appending], **GIVEN)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PidganError, match="needs the package tensorboard"):
        pidgan.train(kaon_dataset, callbacks=[keras.callbacks.TensorBoard()], **GIVEN)
