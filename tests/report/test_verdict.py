"""Verdicts and pulls: what chance gives is not called bad, and what it does not is."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from pidgan.report.exchange import exchange, largest_run, projection
from pidgan.report.verdict import chi2_pull, judge, level_of, sigmas

N_BINS = 20


@pytest.mark.parametrize("of", [stats.norm(3, 2), stats.chi2(8), stats.gumbel_r(1, 2)])
def test_sigmas_are_those_of_the_tail(of: Any) -> None:
    null = of.rvs(size=4000, random_state=np.random.default_rng(1))
    for wanted in (-1.0, 0.0, 1.0, 2.0, 3.0):
        value = of.isf(stats.norm.sf(wanted))
        assert sigmas(value, null) == pytest.approx(wanted, abs=0.3)
    values = [sigmas(v, null) or 0.0 for v in of.rvs(size=2000, random_state=2)]
    assert np.mean(np.array(values) > 2) == pytest.approx(0.023, abs=0.012)


def test_a_constant_has_no_pull() -> None:
    assert sigmas(1.0, np.ones(50)) == 0.0
    assert sigmas(1.5, np.ones(50)) is None
    assert sigmas(np.nan, np.arange(9)) is None
    assert sigmas(1.0, [0.0, np.nan]) is None


def test_the_pull_of_a_chi2_is_that_of_its_probability() -> None:
    assert chi2_pull(stats.chi2.isf(stats.norm.sf(2.5), 7), 7) == pytest.approx(2.5)
    assert chi2_pull(0.0, 0) is None
    assert chi2_pull(1e6, 3) == 37.0


def test_the_verdict_says_how_many_figures_were_looked_at() -> None:
    rng = np.random.default_rng(1)
    pulls = [(f"figure {i}", float(p)) for i, p in enumerate(rng.normal(size=60))]
    found = judge([*pulls, ("unknown", None), ("infinite", np.inf)])
    assert found is not None
    assert (found.looked, found.level) == (60, "good")
    assert found.worst == max(pulls, key=lambda pair: pair[1])[0]
    assert "2 more figures have no known pull" in found.more
    assert [pull for _, pull in found.ranked] == sorted(
        (p for _, p in pulls), reverse=True
    )[: len(found.ranked)]


@pytest.mark.parametrize(
    ("worst", "n", "level", "text"),
    [
        (
            1.9,
            40,
            "good",
            "No figure of 40 is more than 2 sigma above its",
        ),
        (2.6, 40, "good", "1 of 40 figures is more than 2 sigma"),
        (3.8, 40, "fair", "worst: bad one, 3.8 sigma."),
        (3.8, 4, "bad", "worst: bad one, 3.8 sigma."),
        (9.0, 400, "bad", "9.0 sigma."),
    ],
)
def test_the_same_pull_is_rarer_among_few_figures(
    worst: float, n: int, level: str, text: str
) -> None:
    found = judge([("bad one", worst), *[("other", 0.0)] * (n - 1)])
    assert found is not None
    assert found.level == level
    assert text in found.text
    assert found.chance == pytest.approx(1 - stats.norm.cdf(worst) ** n, abs=1e-12)


def test_no_verdict_without_a_pull() -> None:
    assert judge([("a", None)]) is None
    assert [level_of(p) for p in (None, -3.0, 2.5, 3.5)] == ["", "good", "fair", "bad"]


def rows(n: int, rng: np.random.Generator, *, twist: float = 0.0) -> tuple:
    """Bins of real and generated rows, and signed weights with background."""
    x = rng.random(n)
    w = np.where(rng.random(n) < 0.3, -0.7, 1.2)
    real, made = (np.clip((x + rng.normal(0, 0.2, n)) % 1.0, 0, 0.999) for _ in "ab")
    made = made + twist * np.sin(2 * np.pi * made)
    bins = [np.clip((v * N_BINS).astype(int), 0, N_BINS - 1) for v in (real, made)]
    return bins[0], bins[1], w


def test_exchanged_rows_have_the_spread_of_a_perfect_generator() -> None:
    rng = np.random.default_rng(3)
    found, spread = [], []
    for i in range(200):
        real, made, w = rows(400, rng)
        sums = exchange(w, [(real, made)], N_BINS, seed=i)
        found.append(sums.value)
        spread.append(sums.deviation)
        np.testing.assert_allclose(
            sums.value,
            np.bincount(made, w, N_BINS) - np.bincount(real, w, N_BINS),
            atol=1e-9,
        )
        assert sums.exchanged.std(axis=0) == pytest.approx(sums.deviation, rel=0.25)
    expected = np.sqrt(np.mean(np.square(spread), axis=0))
    assert np.std(found, axis=0) == pytest.approx(expected, rel=0.2)


def test_pulls_of_a_perfect_projection_are_standard_normal() -> None:
    rng, pulls = np.random.default_rng(5), []
    labels = [str(b) for b in range(N_BINS)]
    for i in range(150):
        real, made, w = rows(400, rng)
        one = projection(exchange(w, [(real, made)], N_BINS, seed=i), labels)
        assert one is not None
        names = ("chi2_pull", "largest_pull_pull", "run_pull")
        pulls.append([one[name] for name in names])
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.3
    assert np.abs(np.std(pulls, axis=0) - 1).max() < 0.3
    assert np.mean(np.array(pulls) > 2) < 0.06


def test_a_coherent_distortion_is_seen_by_its_run() -> None:
    # Pulls of -2.8 ... +2.5 over neighbouring bins, with an rms that looks harmless.
    n = 60
    wave = np.zeros(n)
    wave[20:32] = [-1.2, -1.8, -2.4, -2.8, -2.1, -1.3, 1.2, 1.9, 2.5, 2.2, 1.6, 1.1]
    noise = np.random.default_rng(2).normal(0, 0.66, n)
    noise[20:32] = 0
    pulls = wave + noise
    assert np.sqrt(np.mean(pulls**2)) == pytest.approx(1.0, abs=0.08)
    null = np.random.default_rng(3).normal(size=(300, n))
    run, first, last = largest_run(np.concatenate([pulls[None], null]))
    assert 17 <= first[0] <= 20
    assert last[0] == 25
    of_run = sigmas(float(run[0]), run[1:]) or 0.0
    of_chi2 = sigmas(float(np.sum(pulls**2)), np.sum(null**2, axis=1)) or 0.0
    assert of_run > 3
    assert of_chi2 < 1
    assert of_run > of_chi2 + 2


def test_runs_of_one_sign_end_where_it_changes() -> None:
    found = largest_run([[1, 1, -2, 3, 0, 2], [-1, -1, -1, 1, 1, 1.5]])
    for got, expected in zip(found, ([9, 4.25], [3, 3], [3, 5]), strict=True):
        np.testing.assert_allclose(got, expected)


def test_a_wrong_projection_is_found() -> None:
    real, made, w = rows(4000, np.random.default_rng(1), twist=0.06)
    labels = [str(b) for b in range(N_BINS)]
    one = projection(exchange(w, [(real, made)], N_BINS, seed=1), labels)
    assert one is not None
    assert min(one["chi2_pull"], one["run_pull"]) > 3
    assert projection(exchange(w, [(real, real)], N_BINS, seed=1), labels) is None
