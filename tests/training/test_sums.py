"""Targets that are sums of earlier ones: found, exact in ties, and undone."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.sample.dataset import Part
from pidgan.sample.definition import Sample
from pidgan.training.targets import fit_targets, read_targets
from pidgan.training.targets.sums import find_sums
from pidgan.training.targets.tracks import TargetTransform

N = 20_000
CONDITIONS = [
    {"name": "P", "range": (0, 1)},
    *(
        {"name": name, "range": (-99, 99), "transform": "quantiles", "sentinels": [s]}
        for name, s in (("rich", -999), ("muon", -1000))
    ),
    {"name": "isMuon", "categories": [0, 1], "transform": "quantiles"},
]
TARGETS = [
    {"name": "PIDmu", "range": (-150, 150), "sentinels": [-999]},
    {"name": "ProbNN", "range": (0, 1), "sentinels": [-2]},
    {"name": "nHits", "range": (0, 99), "integer": True},
]
DEFINITION = {
    "schema": 1,
    "name": "sums",
    "title": "Sums",
    "detector": "toy",
    "species": "mu+",
    "source": "none",
    "unweighted": True,
    "conditions": CONDITIONS,
    "targets": TARGETS,
}


def made(n: int = N, seed: int = 1) -> Part:
    """PIDmu is the sum of two likelihoods and a rest, which is often zero."""
    rng = np.random.default_rng(seed)
    rich, muon = rng.normal(0, 20, n), rng.normal(0, 3, n)
    rich[: n // 20], muon[n // 40 : n // 4] = -999, -1000
    rest = np.where(rng.random(n) < 0.3, 0, rng.normal(0.5, 0.4, n))
    kept = [np.where(c < -900, 0, c).astype(np.float32) for c in (rich, muon)]
    pid = kept[0] + kept[1] + rest.astype(np.float32)
    pid[: n // 50] = -999
    prob = 0.5 + 0.5 * np.tanh(pid / 10)
    prob[: n // 50] = -2
    flags = rng.random(n) < 0.5
    conditions = np.stack([rng.random(n), rich, muon, flags], axis=1)
    targets = np.stack([pid, prob, rng.poisson(9, n)], axis=1)
    return Part(
        conditions=conditions.astype(np.float32),
        targets=targets.astype(np.float32),
        weights=np.ones(n),
        alternatives=np.zeros((n, 0)),
    )


@pytest.fixture(scope="module")
def sample() -> Sample:
    return Sample.model_validate(DEFINITION)


def test_sums_are_found(sample: Sample) -> None:
    part = made()
    sums = find_sums(sample, part)
    assert sums is not None
    terms = np.zeros((4, 3))
    terms[1:3, 0] = 1
    np.testing.assert_array_equal(sums.terms, terms)
    assert sums.is_sum.tolist() == [True, False, False]
    rest = sums.rest(part.targets, part.conditions)
    np.testing.assert_array_equal(rest[:, 1:], part.targets[:, 1:])
    assert (rest[:, 0] == -999).sum() == N // 50
    assert 0.2 < (rest[:, 0] == 0).mean() < 0.4
    whole = sums.whole(rest, part.conditions)
    np.testing.assert_allclose(whole, part.targets, rtol=1e-6, atol=1e-5)
    equal = rest == 0
    np.testing.assert_array_equal(whole[equal], part.targets[equal])
    # What is generated stays within the values of the training.
    far = part.conditions + np.float32([0, 500, 0, 0])
    assert sums.whole(rest, far)[:, 0].max() == part.targets[:, 0].max()


def test_no_sum_of_conditions_that_are_no_targets(sample: Sample) -> None:
    linear = [c | {"transform": "linear"} for c in CONDITIONS]
    other = Sample.model_validate(DEFINITION | {"conditions": linear})
    assert find_sums(other, made()) is None
    part = made()
    rng = np.random.default_rng(2)
    mixed = part.conditions[rng.permutation(N)]
    free = Part(**(vars(part) | {"conditions": mixed}))
    assert find_sums(sample, free) is None


def test_a_transform_with_sums(sample: Sample) -> None:
    part = made()
    transform = fit_targets(sample, part)
    assert isinstance(transform, TargetTransform)
    kept, rows = transform.rows(part, seed=1)
    assert kept.mean() > 0.99
    codes = np.eye(transform.n_patterns, dtype=np.float32)[rows["pattern"]]
    back = transform.inverse(rows["y"], codes, part.conditions[kept])
    expected = part.targets[kept]
    np.testing.assert_array_equal(back[:, 2], expected[:, 2])
    close = np.abs(back - expected) < 0.05
    assert close.mean() > 0.99
    np.testing.assert_array_equal(back == -999, expected == -999)
    ties = [
        (part.conditions[kept, 1] == y[:, 0]) & (part.conditions[kept, 2] == -1000)
        for y in (back, expected)
    ]
    assert ties[1].sum() > 500
    np.testing.assert_array_equal(*ties)
    # A tie is no value that the target takes exactly; a sentinel is.
    assert transform.exact_values()[0].tolist() == [-999]
    assert -2 in transform.exact_values()[1]
    again = read_targets(sample, transform.to_arrays())
    np.testing.assert_array_equal(
        again.inverse(rows["y"], codes, part.conditions[kept]), back
    )
