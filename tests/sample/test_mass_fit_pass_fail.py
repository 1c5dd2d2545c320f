"""Signal counted among rows that pass and that fail, in bins."""

import numpy as np
import pytest

from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_fit_pass_fail import (
    PassFail,
    count_signal,
    fit_all,
    position_of,
)

SHAPE = Discriminant(branch="m", range=(1800.0, 1900.0), signal="gauss")
EFFICIENCY, OF_BACKGROUND = 0.9, 0.25


def draw(seed: int, n: int = 6000, *, slope: float = 0.0) -> tuple[np.ndarray, ...]:
    """Mass, whether a row passes, and its bin; the background may pass by its mass."""
    rng = np.random.default_rng(seed)
    is_signal = rng.random(n) < 0.6
    u = rng.random(n)
    u[is_signal] = np.clip(0.4 + 0.06 * rng.normal(size=is_signal.sum()), 0, 1)
    of_background = OF_BACKGROUND + slope * (u - 0.4)
    passed = rng.random(n) < np.where(is_signal, EFFICIENCY, of_background)
    return 1800 + 100 * u, passed, rng.integers(2, size=n)


def count(mass: np.ndarray, passed: np.ndarray, place: np.ndarray) -> PassFail:
    position = position_of(mass, SHAPE)
    start = fit_all(position, SHAPE, "mass fit")
    return count_signal(position, passed[np.newaxis], place, n_bins=2, start=start)


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_the_efficiency_is_that_of_the_signal(slope: float) -> None:
    # Whatever the background does: both kinds of rows have their own.
    pulls = []
    for seed in range(12):
        found = count(*draw(seed, slope=slope))
        assert not found.problems
        pulls += list((found.efficiency - EFFICIENCY)[0] / found.variance[0] ** 0.5)
    assert abs(np.mean(pulls)) < 3 / np.sqrt(len(pulls))
    assert 0.6 < np.std(pulls) < 1.4


def test_pass_and_fail_are_exchangeable() -> None:
    mass, passed, place = draw(1)
    one, other = count(mass, passed, place), count(mass, ~passed, place)
    np.testing.assert_allclose(one.efficiency, 1 - other.efficiency, atol=2e-4)
    np.testing.assert_allclose(one.variance, other.variance, rtol=0.02)


def test_a_bin_without_enough_rows_is_a_problem() -> None:
    mass, passed, place = draw(2)
    place[place == 1] = -1
    place[:50] = 1
    found = count(mass, passed, place)
    assert list(found.problems) == [(0, 1)]
    assert "50 rows, expected at least 100" in found.problems[0, 1]
    assert np.isnan(found.efficiency[0, 1])
    assert np.isfinite(found.efficiency[0, 0])


def test_a_cut_that_all_rows_pass_has_an_error() -> None:
    mass, passed, place = draw(3)
    found = count(mass, np.ones_like(passed), place)
    np.testing.assert_allclose(found.efficiency, 1, atol=0.01)
    assert (found.variance > 0).all()
