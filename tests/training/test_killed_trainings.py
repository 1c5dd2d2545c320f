"""Models, checkpoints and bundles that a killed process was writing.

PIDGAN_KILL_TRAINING=1 kills a whole training before every operation on files, too.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import Output, kill_everywhere

pytest.importorskip("tensorflow")

from pidgan.bundle.bundle import open_bundle
from pidgan.sample.dataset import Dataset
from pidgan.training import course, export
from pidgan.training import model as models
from pidgan.training.course import Training
from pidgan.training.families import Distilled
from pidgan.training.loop import CHECKPOINT, train
from pidgan.training.model import Model, open_model
from pidgan.training.setup import set_up

SMALL = {"width": 8, "layers": 1, "teacher_width": 8, "teacher_blocks": 1, "xla": False}


@pytest.fixture(scope="module")
def two(kaon_model: Model) -> list[Model]:
    """The kaon's model, and one that is called a pion's, with other files."""
    x = kaon_model.conditions
    card = kaon_model.card.model_copy(update={"species": "pi+"})
    other = dataclasses.replace(
        kaon_model,
        card=card,
        conditions=dataclasses.replace(x, scale=2 * x.scale),
        held_out=kaon_model.held_out.head(500),
    )
    return [kaon_model, other]


@pytest.fixture
def quick(two: list[Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks and graphs are made once: writing and reading files is what counts."""
    network = two[0].generator
    family = dataclasses.make_dataclass("F", ["generator"])(network)
    monkeypatch.setattr(models, "build_family", lambda *_, **__: family)
    monkeypatch.setattr(models, "pattern_network", lambda *_, **__: two[0].patterns)
    graphs = [export.build_graph(model) for model in two]
    monkeypatch.setattr(
        export,
        "build_graph",
        lambda model, **_: graphs[[m is model for m in two].index(True)],
    )
    rows = [export._test_rows(model, model.held_out) for model in two]
    targets = [model.generate(*own) for model, own in zip(two, rows, strict=True)]
    monkeypatch.setattr(
        Model,
        "generate",
        lambda model, *_: targets[[m is model for m in two].index(True)],
    )


def saved(two: list[Model]) -> Output:
    def write(folder: Path, which: int, overwrite: bool) -> None:
        two[which].save(folder / "model", overwrite=overwrite)

    def read(folder: Path) -> Any:
        if not (folder / "model").exists():
            return None
        found = open_model(folder / "model")
        scale = found.conditions.scale.tolist()
        return found.card.species, scale, len(found.held_out)

    return Output(write, read)


def exported(two: list[Model]) -> Output:
    def write(folder: Path, which: int, overwrite: bool) -> None:
        export.export_bundle(two[which], folder / "kaon.onnx", overwrite=overwrite)

    def read(folder: Path) -> Any:
        if not (folder / "kaon.onnx").exists():
            return None
        bundle = open_bundle(folder / "kaon.onnx")
        reference = bundle.reference()
        assert reference is not None
        return bundle.card.species, len(reference)

    return Output(write, read)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("kind", [saved, exported])
def test_killed_before_any_operation(
    kind: Any, overwrite: bool, two: list[Model], tmp_path: Path
) -> None:
    assert kill_everywhere(kind(two), tmp_path, overwrite=overwrite) > 5


def test_a_model_beside_a_checkpoint_of_a_killed_training(
    kaon_dataset: Dataset, two: list[Model], quick: None, tmp_path: Path
) -> None:
    """A checkpoint is the old or the new one; a model beside it is no matter."""
    training = Training(set_up(kaon_dataset, Distilled(**SMALL), seed=1))

    def write(folder: Path, which: int, overwrite: bool) -> None:
        training.step = 1 + which
        training.save(folder / CHECKPOINT)

    def read(folder: Path) -> Any:
        if not (folder / CHECKPOINT).exists():
            return None
        training.load(folder / CHECKPOINT)
        return training.step

    (tmp_path / "a").mkdir()
    kill_everywhere(Output(write, read), tmp_path / "a", overwrite=True)
    checkpoint = tmp_path / "a" / "whole" / CHECKPOINT

    def save(folder: Path, which: int, overwrite: bool) -> None:
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / CHECKPOINT).write_bytes(checkpoint.read_bytes())
        two[which].save(folder / "model", overwrite=True)

    def opened(folder: Path) -> Any:
        found = (folder / "model" / "model.json").exists()
        return found and open_model(folder / "model").card.species

    (tmp_path / "b").mkdir()
    kill_everywhere(Output(save, opened), tmp_path / "b", overwrite=True)


@pytest.mark.skipif("PIDGAN_KILL_TRAINING" not in os.environ, reason="takes minutes")
def test_a_training_is_killed_and_resumed(
    kaon_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "CHECKPOINT_SECONDS", 0.0)

    def write(folder: Path, which: int, overwrite: bool) -> None:
        options: Any = {"steps": 12, "seed": 3 + which, "settings": SMALL}
        path = folder / "model"
        model = train(kaon_dataset, directory=path, resume=True, **options)
        model.save(path, overwrite=True)

    def read(folder: Path) -> Any:
        if not (folder / "model" / "model.json").exists():
            return None
        model = open_model(folder / "model")
        rows = kaon_dataset.part("test").conditions[:50]
        noise = np.zeros((50, model.card.n_noise), np.float32)
        return model.generate(rows, noise).tolist()

    assert kill_everywhere(Output(write, read), tmp_path, overwrite=False) > 10
