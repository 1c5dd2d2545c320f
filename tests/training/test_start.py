"""Trainings that start from a trained generator of a neighbouring sample."""

import dataclasses
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run
from command_line import one_line as _one_line

pytest.importorskip("tensorflow")

import pidgan
from pidgan.bundle.card import Card, card_rows, sample_targets
from pidgan.bundle.shipped import shipped_path
from pidgan.errors import PidganError, PidganWarning
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.training import families
from pidgan.training.budget import Budget, Duration, default_budget
from pidgan.training.chain import chain_of, of_link
from pidgan.training.loop import train
from pidgan.training.members import train_members
from pidgan.training.model import Model, open_model
from pidgan.training.record import Progress
from pidgan.training.setup import choose_family, set_up
from pidgan.training.start import (
    MOST_SEEN,
    RATE,
    beside,
    most_steps,
    open_start,
    record_of,
)
from pidgan.training.start_checks import check_start

TINY: dict[str, Any] = {"n_latent": 2, "width": 8, "blocks": 1, "batch_size": 64}
DEFINITION: dict[str, Any] = {
    "schema": 1,
    "name": "block_1",
    "title": "A toy",
    "detector": "toy",
    "species": "K+",
    "source": "none",
    "unweighted": True,
    "conditions": [
        {"name": "P", "range": (3, 100), "transform": "log"},
        {"name": "side", "categories": [0, 1]},
    ],
    "targets": [
        {"name": "DLLK", "range": (-150, 150), "sentinels": [-999]},
        {"name": "DLLp", "range": (-150, 150)},
    ],
}


def rows(n: int, *, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """A target with a sentinel, and one that is equal to it in a tenth of the rows."""
    rng = np.random.default_rng(seed)
    p, side = rng.uniform(3, 100, n), rng.integers(0, 2, n)
    k = 10 - 0.1 * p + 3 * side + shift + rng.standard_t(4, n) * 6
    other = np.where(rng.random(n) < 0.1, k, 0.5 * k + 4 * rng.normal(size=n))
    missing = rng.random(n) < 0.05
    return pd.DataFrame(
        {
            "P": p,
            "side": side,
            "DLLK": np.where(missing, -999, np.clip(k, -140, 140)),
            "DLLp": np.clip(other, -140, 140),
        }
    )


def changed(**update: Any) -> Sample:
    return Sample.model_validate(DEFINITION | update)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("first") / "rows.parquet"
    rows(4000, seed=1).to_parquet(path)
    return pidgan.build_dataset(changed(), path)


@pytest.fixture(scope="module")
def neighbour(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("next") / "rows.parquet"
    rows(2000, seed=2, shift=1.0).to_parquet(path)
    return pidgan.build_dataset(changed(name="block_2"), path)


@pytest.fixture(scope="module")
def start(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model, with its checkpoint."""
    folder = tmp_path_factory.mktemp("start") / "first-model"
    model = train(
        dataset, family="vae", steps=300, seed=3, settings=TINY, directory=folder
    )
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def started(neighbour: Dataset, start: Path) -> Model:
    model = train(neighbour, steps=24, seed=1, from_model=start)
    assert isinstance(model, Model)
    return model


def targets_of(model: Any, dataset: Dataset) -> np.ndarray:
    return sample_targets(model, dataset.part("test").conditions[:400], seed=1)


def finite(model: Model, name: str) -> np.ndarray:
    losses = np.array(model.history[f"validation_{name}"])
    return losses[np.isfinite(losses)]


def test_a_start_from_itself_is_not_worse(dataset: Dataset, start: Path) -> None:
    known = open_model(start)
    model = train(dataset, steps=4, seed=1, from_model=known)
    assert finite(model, "patterns")[-1] <= finite(model, "patterns")[0]
    losses = finite(model, "likelihood") + finite(model, "divergence")
    assert losses[-1] <= losses[0]
    again = targets_of(model, dataset) - targets_of(known, dataset)
    tiny = families.Vae(**TINY)
    cold = set_up(dataset, tiny, seed=1).model(tiny, steps=0, history={"step": []})
    far = targets_of(cold, dataset) - targets_of(known, dataset)
    assert np.abs(again).mean() < 0.2 * np.abs(far).mean()


def test_weights_of_the_start_stay_where_no_others_are_better(
    dataset: Dataset, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pidgan.training.start.RATE", -1.0)  # uphill
    known, model = open_model(start), train(dataset, steps=12, seed=1, from_model=start)
    for mine, own in zip(
        model.generator.variables, known.generator.variables, strict=True
    ):
        np.testing.assert_array_equal(mine.numpy(), own.numpy())
    for mine, own in zip(model.beside, known.beside, strict=True):
        np.testing.assert_array_equal(mine, own)


def test_the_same_seed_gives_the_same_model(
    neighbour: Dataset, start: Path, started: Model, tmp_path: Path
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.step >= 12:
            raise KeyboardInterrupt

    options: Any = {"steps": 24, "seed": 1, "from_model": start, "directory": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        train(neighbour, progress=interrupt, **options)
    with pytest.raises(
        PidganError, match=r"another training: start was '.*', now None"
    ):
        train(
            neighbour,
            **options | {"from_model": None, "resume": True},
            family="vae",
            settings=TINY,
        )
    resumed = train(neighbour, resume=True, **options)
    assert isinstance(resumed, Model)
    expected = started.arrays()
    for name, values in resumed.arrays().items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_the_card_says_where_a_model_started(start: Path, started: Model) -> None:
    known = open_model(start)
    assert isinstance(known, Model)
    assert started.card.start == record_of(known)
    assert started.card.start["steps"] == 300
    assert started.card.settings == known.card.settings
    assert Card.from_json(started.card.to_json()) == started.card
    text = "a generator of block_1, 300 steps"
    assert card_rows(started.card)["started from"] == text
    assert '"start"' not in known.card.to_json()
    assert default_budget(known).seconds == 120 < default_budget(None).seconds


def test_a_saved_model_is_the_same_start(started: Model, tmp_path: Path) -> None:
    started.save(tmp_path / "m")
    opened = open_model(tmp_path / "m")
    assert isinstance(opened, Model)
    assert len(opened.beside) == len(started.beside) > 0
    assert record_of(opened) == record_of(started)


def test_models_without_the_networks_beside(
    neighbour: Dataset, start: Path, started: Model, tmp_path: Path
) -> None:
    """Earlier versions kept them in the checkpoint only."""
    whole = open_model(start)
    assert isinstance(whole, Model)
    old = tmp_path / "old"
    dataclasses.replace(whole, beside=()).save(old)
    shutil.copy(start / "checkpoint.npz", old)
    found = open_start(old)
    assert isinstance(found, Model)
    for mine, own in zip(found.beside, whole.beside, strict=True):
        np.testing.assert_array_equal(mine, own)
    for text in ("no zip file", ""):  # a checkpoint that is damaged, and none
        (old / "checkpoint.npz").write_text(text)
        if not text:
            (old / "checkpoint.npz").unlink()
        assert open_start(old).beside == ()  # type: ignore[union-attr]
    with pytest.warns(PidganWarning, match=r"'block_1' brings 0 of the \d+ arrays"):
        set_up(neighbour, families.Vae(**TINY), seed=1, start=open_start(old))


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (
            {"conditions": DEFINITION["conditions"][::-1]},
            "its conditions are side, P, those of the start P, side",
        ),
        (
            {"targets": [DEFINITION["targets"][0], {"name": "DLLmu", "range": (0, 1)}]},
            "its targets are DLLK, DLLmu, those of the start DLLK, DLLp; expected the "
            "same, in the same order; closest: 'DLLp'",
        ),
        (
            {
                "conditions": [
                    DEFINITION["conditions"][0] | {"unit": "mm"},
                    DEFINITION["conditions"][1],
                ]
            },
            "unit of 'P' is 'mm', that of the start '1'",
        ),
        (
            {
                "conditions": [
                    DEFINITION["conditions"][0],
                    {"name": "side", "categories": [0, 1, 2]},
                ]
            },
            r"categories of 'side' is \(0.0, 1.0, 2.0\), that of the start \(0.0, 1.0",
        ),
        (
            {
                "targets": [
                    DEFINITION["targets"][0] | {"sentinels": [-999, -5]},
                    DEFINITION["targets"][1],
                ]
            },
            "'DLLK' has the sentinel -5, the start knows -999",
        ),
    ],
)
def test_samples_that_differ_too_much(
    neighbour: Dataset, start: Path, update: dict[str, Any], message: str
) -> None:
    other = dataclasses.replace(neighbour, sample=changed(name="block_2", **update))
    text = "sample 'block_2' cannot start from a generator of 'block_1': " + message
    with pytest.raises(PidganError, match=text):
        train(other, steps=2, from_model=start)


def test_rows_that_differ_too_much(neighbour: Dataset, start: Path) -> None:
    known = open_model(start)
    assert isinstance(known, Model)

    def replaced(column: int, where: float, value: Any) -> Dataset:
        y = np.array(neighbour.targets)
        some = np.arange(len(y)) < where * len(y)
        y[some, column] = value(y)[some]
        return dataclasses.replace(neighbour, targets=y)

    twos = replaced(1, 0.2, lambda y: np.full(len(y), 2.0, dtype=np.float32))
    with pytest.raises(PidganError, match=r"'DLLp' is exactly 2 in 2\d % of the rows"):
        train(twos, steps=2, from_model=start)
    tied = replaced(1, 0.3, lambda y: y[:, 0])  # a tie that the start knows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PidganWarning)  # of differences
        check_start(known, tied.sample, tied.part("train"), families.Vae(**TINY))
    far = replaced(1, 0.1, lambda y: 140 + np.arange(len(y)) / len(y))
    with pytest.warns(PidganWarning, match="'DLLp' is beyond the range of the start"):
        check_start(known, far.sample, far.part("train"), families.Vae(**TINY))


def test_families_and_settings_are_those_of_the_start(
    neighbour: Dataset, start: Path
) -> None:
    with pytest.raises(PidganError, match="of family 'vae', which family 'energy' can"):
        train(neighbour, steps=2, from_model=start, family="energy")
    with pytest.raises(PidganError, match="width is 24, that of the start 8"):
        train(neighbour, steps=2, from_model=start, settings={"width": 24})


def test_a_family_that_does_more_goes_on_from_one_that_does_less(
    dataset: Dataset, neighbour: Dataset
) -> None:
    small = families.Distilled(width=8, teacher_width=8, teacher_blocks=1)
    setup = set_up(dataset, small, seed=1)
    model = setup.model(small, steps=0, history={"step": []})
    chosen = choose_family("cramer", None, {}, neighbour, start=model)
    assert (chosen.width, chosen.teacher_width) == (8, 8)
    with pytest.warns(PidganWarning, match="others begin anew"):  # those of the critic
        more = set_up(neighbour, chosen, seed=2, start=model)
    for mine, own in zip(beside(more.family), model.beside, strict=False):
        np.testing.assert_array_equal(mine.numpy(), own)
    rates = {
        phase.name: [d.optimizer.learning_rate for d in phase.descents]
        for phase in more.phases
    }
    assert rates["teach"][0] == RATE * chosen.teach_learning_rate
    assert rates["warm"][0] == chosen.critic_learning_rate


def test_other_things_than_models(
    run: Run, neighbour: Dataset, start: Path, tmp_path: Path
) -> None:
    bundle = shipped_path("demo-kaon", ".onnx")
    with pytest.raises(PidganError, match=r"kaon\.onnx is a bundle.* from the mod"):
        train(neighbour, steps=2, from_model=bundle)
    neighbour.save(tmp_path / "data")
    with pytest.raises(PidganError, match="data is a dataset, expected a model"):
        train(neighbour, steps=2, from_model=tmp_path / "data")
    with pytest.raises(PidganError, match="no-model holds no finished model"):
        train(neighbour, steps=2, from_model=tmp_path / "no-model")
    command = ("train", tmp_path / "data", "-o", tmp_path / "m", "--steps", 2)
    _one_line(run(*command, "--from", bundle), "from the model folder")
    told = run(*command, "--from", start, "--json")
    assert told.code == 0, told.err
    assert '"sample": "block_1"' in told.out
    _one_line(
        run(*command, "--overwrite", "--from", start, "--set", "width=9"),
        "width is 9, that of the start 8",
    )


def test_chains_start_link_by_link(neighbour: Dataset, start: Path) -> None:
    links = [{"name": t["name"], "targets": [t["name"]]} for t in DEFINITION["targets"]]
    chain = dataclasses.replace(neighbour, sample=changed(name="chain", links=links))
    tiny, models = families.Vae(**TINY), []
    for k in range(2):
        setup = set_up(of_link(chain, k), tiny, seed=1 + k)
        models.append(setup.model(tiny, steps=7 + k, history={"step": []}))
    held_out = chain.frame("test")
    first = chain_of(chain.sample, models, info=chain.info, held_out=held_out)
    again = train(chain, steps=4, from_model=first)
    assert [one["steps"] for one in again.card.start["links"]] == [7, 8]
    assert card_rows(again.card)["started from"].endswith("15 steps")
    with pytest.raises(
        PidganError,
        match=r"'block_1' is no chain, but sample 'chain' is a chain of links DLLK \| ",
    ):
        train(chain, steps=8, from_model=start)
    with pytest.raises(PidganError, match="but sample 'block_2' is no chain"):
        train(neighbour, steps=8, from_model=first)


def test_members_share_a_start(neighbour: Dataset, start: Path, tmp_path: Path) -> None:
    options: Any = {"members": 2, "steps": 6, "from_model": start}
    models = train_members(neighbour, tmp_path, **options)
    assert [m.card.start["steps"] for m in models] == [300, 300]
    kept = train_members(neighbour, tmp_path, resume=True, **options)
    assert [m.card for m in kept] == [m.card for m in models]
    with pytest.raises(PidganError, match=r"start was '.*', now ''"):
        train_members(
            neighbour, tmp_path, members=2, resume=True, family="vae", steps=6
        )


def showers(tmp_path: Path, *, nx: int, pitch: float, scale: float) -> Dataset:
    rng = np.random.default_rng(nx)
    energy = rng.uniform(1e3, 1e4, 300)
    shares = rng.dirichlet(np.full(3 * nx, 0.5), 300)
    plane = {"kind": "rectangular", "cell": [pitch, pitch], "nx": nx, "ny": 3}
    geometry = {"name": "toy", "layers": [plane | {"thickness": 50.0}]}
    path = tmp_path / f"{nx}-{pitch}.npz"
    np.savez(path, energy=energy, cells=scale * energy[:, None] * shares)
    content = {
        key: DEFINITION[key] for key in ("schema", "title", "detector", "source")
    } | {
        "name": f"calorimeter_{nx}_{pitch:.0f}",
        "species": "gamma",
        "unweighted": True,
        "conditions": [{"name": "energy", "unit": "MeV", "range": (1e3, 1e4)}],
        "cells": {
            "geometry": geometry,
            "arrays": {"cells": "cells"},
            "incident": "energy",
        },
    }
    return pidgan.build_dataset(Sample.model_validate(content), path)


def test_calorimeters_of_the_same_shape(tmp_path: Path) -> None:
    """Cells of another size and material may start, other numbers of cells not."""
    small = families.ShowerVae(width=8, blocks=1, latent=2)
    own, same, other = (
        showers(tmp_path, nx=nx, pitch=pitch, scale=scale)
        for nx, pitch, scale in ((3, 20.0, 0.9), (3, 30.0, 0.5), (4, 20.0, 0.9))
    )
    model = set_up(own, small, seed=1).model(small, steps=0, history={"step": []})
    again = set_up(same, small, seed=2, start=model)
    for mine, kept in zip(
        again.family.generator.variables, model.generator.variables, strict=True
    ):
        np.testing.assert_array_equal(mine.numpy(), kept.numpy())
    # The total is seen through the quantiles of the new material.
    x = same.part("test").conditions
    assert np.isclose(again.targets.knots[0].max(), np.log(0.5), atol=1e-3)
    assert again.conditions is model.conditions
    assert len(x)
    message = (
        "its views have 12 cells in 1 layer, those of the start 9 cells in 1 layer"
    )
    with pytest.raises(PidganError, match=message):
        set_up(other, small, seed=2, start=model)


def test_few_rows_are_not_seen_without_end(dataset: Dataset, start: Path) -> None:
    known = open_model(start)
    setup = set_up(dataset, families.Vae(**TINY), seed=1, start=known)
    most = most_steps(setup.phases, dataset)
    assert most == int(MOST_SEEN * len(dataset.part("train").weights) / 64)
    now = Budget(Duration(100.0), clock=lambda: 0.0)
    assert now.pace(0.001, overhead=0.0, least=1) == 100_000
    now.most = most
    assert now.pace(0.001, overhead=0.0, least=1) == most
    assert now.correct(most, left=1.0, least=1) == most
    assert now.after(Budget(Duration(50.0))).most == most
