"""Rows at rare conditions are drawn more often, in proportion to a known power."""

import numpy as np
import pytest

from pidgan.training.conditions import fit_conditions
from pidgan.training.rows import (
    FLATTENING,
    REPEATS,
    draw_frequencies,
    flatter_draws,
)


def test_probabilities_follow_the_density() -> None:
    rng = np.random.default_rng(1)
    # Squares of equal size: one with 32 times as many rows as the other.
    n = 64_000
    x = rng.uniform(0, 1, (n + n // 32, 2))
    x[n:] += 5
    often = draw_frequencies(x, 2)
    assert often.mean() == pytest.approx(1)
    assert often[n:].mean() / often[:n].mean() == pytest.approx(
        32**FLATTENING, rel=0.05
    )


def test_every_row_is_listed_as_often_as_it_is_drawn() -> None:
    x = np.random.default_rng(2).normal(size=(3000, 3))
    often, listed = draw_frequencies(x, 3), flatter_draws(x, 3)
    assert len(listed) == REPEATS * len(x)
    times = np.bincount(listed, minlength=len(x))
    assert np.abs(times - REPEATS * often).max() <= 1
    assert np.array_equal(listed, flatter_draws(x, 3))


def test_a_single_row_far_away_does_not_rule() -> None:
    x = np.random.default_rng(3).normal(size=(5000, 2))
    x[0] = 1e6
    often = draw_frequencies(x, 2)
    assert often[0] < 20
    assert often[1:].mean() > 0.99


def test_conditions_that_are_all_categories_are_drawn_as_they_come() -> None:
    x = np.random.default_rng(4).integers(0, 2, (1000, 1)).astype(float)
    assert np.all(draw_frequencies(x, 1) == 1)
    transform = fit_conditions(
        np.column_stack([x, x + np.arange(1000)[:, None]]),
        ["category", "angle"],
        categories=[(0, 1), ()],
    )
    assert (transform.n_columns, transform.dimension) == (4, 1)
