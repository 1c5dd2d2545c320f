"""Trainings on more rows than the device holds draw from all of them."""

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.errors import PidganWarning
from pidgan.files import mapped
from pidgan.sample import sampling
from pidgan.sample.dataset import Dataset
from pidgan.sample.sampling import (
    count_rows,
    in_memory,
    part_sums,
    some_rows,
    spread_rows,
)
from pidgan.sample.weights import WeightRegression, n_eff, positive_weights
from pidgan.training import course, feed, loop
from pidgan.training.checkpoint import read_checkpoint
from pidgan.training.families import parse_settings
from pidgan.training.feed import Feed
from pidgan.training.loop import train
from pidgan.training.model import Model
from pidgan.training.setup import set_up

SMALL: Any = {
    "family": "energy",
    "settings": {"width": 8, "blocks": 1, "batch_size": 256},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limits, so that a small dataset is a large one."""
    for module, name, value in (
        (feed, "MEMORY_ROWS", 2000),
        (feed, "FITTED_ROWS", 3000),
        (feed, "VALIDATION_ROWS", 500),
        (feed, "HELD_OUT_ROWS", 800),
        (feed, "SLAB_ROWS", 1024),
        (feed, "BLOCK_ROWS", 64),
        (sampling, "BLOCK_ROWS", 1500),
        (mapped, "LARGE_BYTES", 1000),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def numbered(kaon_dataset: Dataset) -> Dataset:
    """A dataset whose weights are the numbers of its rows, from 1."""
    numbers = np.arange(len(kaon_dataset)) + 1.0
    return dataclasses.replace(kaon_dataset, weights=numbers)


def numbers_of(dataset: Dataset, slabs: int, *, seed: int = 1) -> list[list[int]]:
    """Return the rows that the window of each turn holds."""

    def make(part: Any, seed: int) -> dict[str, Any]:
        return {"x": part.conditions, "w": part.weights.astype(np.float32)}

    found, window = [], Feed(dataset, make, None, seed=seed)
    for turn in range(slabs):
        window.turn_to(turn)
        found.append(np.rint(window.arrays["w"].numpy()).astype(int).tolist())
    return found


@pytest.mark.usefixtures("small")
def test_a_window_moves_over_all_training_rows(numbered: Dataset) -> None:
    own = np.flatnonzero(numbered.split == 0) + 1
    turns = -(-len(own) // feed.SLAB_ROWS) + 2
    windows = numbers_of(numbered, turns)
    seen = set().union(*windows)
    assert seen <= set(own.tolist())
    # A slab leaves out the rows beyond its size: one in twenty or so.
    assert len(seen) > 0.9 * len(own)
    for before, after in itertools.pairwise(windows):
        same = np.asarray(before) == np.asarray(after)
        assert same.mean() == pytest.approx(1 - 1 / feed.SLABS, abs=0.01)
    first = np.asarray(windows[0]) / len(numbered)  # from everywhere
    counts, _ = np.histogram(first, bins=5, range=(0, 1))
    assert (counts > 0.1 * len(first)).all()


@pytest.mark.usefixtures("small")
def test_the_window_depends_on_seed_and_turn_alone(numbered: Dataset) -> None:
    one, again, other = (numbers_of(numbered, 3, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    window = Feed(
        numbered, lambda part, _: {"w": part.weights, "x": part.targets}, None, seed=1
    )
    window.turn_to(2)  # at once, as a training that is continued
    assert np.rint(window.arrays["w"].numpy()).astype(int).tolist() == one[2]


@pytest.mark.usefixtures("small")
def test_a_training_repeats_and_continues(
    kaon_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "DRAWS", 2)  # the window moves each 8 steps
    monkeypatch.setattr(course, "CHECKPOINT_SECONDS", 0.0)
    whole, early = tmp_path / "whole", tmp_path / "early"
    steps: Any = {"steps": 26}

    def keep_early(progress: Any) -> None:
        if progress.step >= 12 and not early.exists():
            shutil.copytree(whole, early)

    model = train(kaon_dataset, **SMALL, **steps, progress=keep_early, directory=whole)
    state, _ = read_checkpoint(early / loop.CHECKPOINT)
    assert 0 < state["step"] < 26
    continued = train(
        kaon_dataset, **SMALL, **steps, progress=False, directory=early, resume=True
    )
    assert isinstance(model, Model)
    assert isinstance(continued, Model)
    for name, values in model.arrays().items():
        np.testing.assert_array_equal(continued.arrays()[name], values)
    account = model.card.dataset["random_rows"]
    assert account == {
        "fitted_rows": 3000,
        "validation_rows": 500,
        "held_out_rows": 800,
    }
    assert len(model.held_out) == pytest.approx(800, abs=5)
    everything = np.asarray(kaon_dataset.conditions)
    for j, variable in enumerate(model.card.conditions):
        assert variable.range == (everything[:, j].min(), everything[:, j].max())


def test_a_dataset_that_fits_memory_has_no_window(kaon_dataset: Dataset) -> None:
    settings = parse_settings(SMALL["family"], SMALL["settings"])
    assert set_up(kaon_dataset, settings, seed=1).rows.feed is None


def test_random_rows_are_of_their_part(
    numbered: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "BLOCK_ROWS", 1500)
    part = some_rows(numbered, "test", 700, seed=3)
    rows = np.rint(part.weights).astype(int) - 1
    assert len(rows) == pytest.approx(700, abs=10)
    assert (numbered.split[rows] == 2).all()
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(part.targets, numbered.targets[rows])
    other = some_rows(numbered, "test", 700, seed=4)
    assert not np.array_equal(other.weights[:600], part.weights[:600])
    whole = some_rows(numbered, "test", 10**9, seed=3)
    np.testing.assert_array_equal(whole.weights, numbered.part("test").weights)
    sums = part_sums(numbered, "test")
    assert sums.rows == len(whole.weights)
    assert sums.n_eff == pytest.approx(n_eff(whole.weights))


@pytest.mark.parametrize("most", [1, 7, 700, 10**6])
def test_spread_rows_are_those_of_the_whole_part(
    numbered: Dataset, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(mapped, "BLOCK_BYTES", 1500)
    whole = numbered.part("test")
    n = len(whole.weights)
    index = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
    part = spread_rows(numbered, "test", most)
    for name, values in vars(part).items():
        np.testing.assert_array_equal(values, getattr(whole, name)[index])


def test_what_holds_all_rows_says_how_many_it_takes(kaon_dataset: Dataset) -> None:
    assert in_memory(kaon_dataset, 10**9, seed=1, what="it") is kaon_dataset
    with pytest.warns(PidganWarning, match=r"a chain takes 5,\d+ random rows of the"):
        less = in_memory(kaon_dataset, 5000, seed=1, what="a chain")
    assert len(less) == sum(less.info["rows"].values()) == less.info["taken"]["rows"]
    assert less.info["hash"] == kaon_dataset.info["hash"]
    shares = [count_rows(less, p) / len(less) for p in ("train", "validation", "test")]  # type: ignore[arg-type]
    assert shares == pytest.approx([0.6, 0.1, 0.3], abs=0.03)


def test_weights_are_regressed_for_other_rows() -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 1, (20_000, 1))
    is_signal = rng.random(len(x)) < 0.2 + 0.6 * x[:, 0]
    w = np.where(is_signal, 1.0, 0.0) + rng.choice([-0.8, 0.8], len(x))
    regression = WeightRegression(x[:12_000], w[:12_000], 1)
    found = regression.of(x[12_000:], w[12_000:])
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(w[12_000:].sum())
    truth = 0.2 + 0.6 * x[12_000:, 0]
    error = np.sqrt(np.mean((found - truth) ** 2))
    own = positive_weights(x, w, 1)[12_000:]
    assert error < 0.5 * truth.std()
    assert error < 1.5 * np.sqrt(np.mean((own - truth) ** 2))
