"""Metrics of showers against independent calculations, laws and known answers."""

import numpy as np
import pytest
import scipy.linalg
from toy_showers import STACK

from pidgan.calorimeter.geometry_file import load_geometry
from pidgan.report.shower_metrics import (
    cell_spectrum,
    correlation_difference,
    energy_edges,
    energy_response,
    fit_resolution,
    frechet_distance,
    high_level,
    kernel_distance,
    lateral_profile,
    longitudinal_profile,
    neighbour_figures,
    separation,
    spectrum_edges,
)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    mix = np.eye(3) + 0.4 * rng.normal(size=(3, 3))
    return rng.normal(size=(1500, 3)) @ mix + 2, rng.normal(size=(1500, 3)) @ mix + 2.3


def test_response_is_that_of_the_truth() -> None:
    rng = np.random.default_rng(1)
    energy = np.exp(rng.uniform(0, np.log(100), 30_000))
    sigma = np.hypot(0.05 / np.sqrt(energy), 0.01)
    visible = 0.9 * energy * (1 + sigma * rng.normal(size=len(energy)))
    found = energy_response(visible, energy, energy_edges(energy, 8))
    assert np.all(np.abs(found.mean - 0.9) < 5 * found.mean_error)
    assert found.count.sum() == len(energy)
    fit = fit_resolution(found)
    # Bins are wide: the mean of sigma is near that at the mean energy.
    assert fit.stochastic == pytest.approx(0.05, rel=0.06)
    assert fit.constant == pytest.approx(0.01, rel=0.15)
    assert fit.noise < 0.02


def test_errors_of_the_resolution_have_the_right_size() -> None:
    rng = np.random.default_rng(2)
    sample = 1 + 0.1 * rng.normal(size=(300, 400))
    found = [energy_response(row, np.ones(400), [0.5, 2.0]) for row in sample]
    values = np.array([r.resolution[0] for r in found])
    assert values.mean() == pytest.approx(0.1, rel=0.02)
    assert np.mean([r.resolution_error[0] for r in found]) == pytest.approx(
        values.std(), rel=0.15
    )


def test_few_energies_have_a_bin_each() -> None:
    edges = energy_edges(np.repeat([1000.0, 2000.0, 5000.0], 5))
    found = energy_response(np.ones(15), np.repeat([1e3, 2e3, 5e3], 5), edges)
    assert found.energy.tolist() == [1000, 2000, 5000]
    assert found.count.tolist() == [5, 5, 5]
    empty = energy_response([1.0, 1.0], [1.0, 1.0], [0.5, 2.0, 3.0])
    assert np.isnan(empty.mean[1])
    assert fit_resolution(empty).n_dof == 0


def test_profiles_hold_all_the_energy() -> None:
    rng = np.random.default_rng(3)
    e = rng.exponential(size=(50, STACK.n_cells))
    profile = longitudinal_profile(e, STACK, "cells")
    assert profile.mean.sum() == pytest.approx(e.sum(axis=1).mean())
    assert profile.edges.tolist() == [25.0 * i for i in range(9)]
    assert lateral_profile(e, STACK, "cells").mean.sum() == pytest.approx(1)
    edges = spectrum_edges(e)
    inside = (e >= edges[0]) & (e < edges[-1])
    assert cell_spectrum(e, edges).mean.sum() * 50 == pytest.approx(inside.sum())
    assert inside.mean() > 0.9998
    xml_like = load_geometry(
        {"layers": [{"kind": "list", "centres": [[0, 0]], "cell": [1, 1], "count": 3}]}
    )
    unknown = longitudinal_profile(np.ones((4, 3)), xml_like, "cells")
    assert unknown.edges.tolist() == [-0.5, 0.5, 1.5, 2.5]


def test_separation_of_known_samples() -> None:
    rng = np.random.default_rng(4)
    a = rng.normal(size=4000)
    assert separation(a, a) == 0
    # One real value in a thousand is in the bin of what lies beyond.
    assert separation(a, a + 100) == pytest.approx(0.998, abs=0.001)
    assert separation(a, rng.normal(size=4000)) < 0.02
    assert separation(np.zeros(10), np.zeros(5)) == 0
    assert separation(np.zeros(10), np.ones(5)) == 1
    assert separation([0, 0, 1, 1], [0, 1, 1, 1]) == pytest.approx(
        0.5 * (0.25**2 / 0.75 + 0.25**2 / 1.25)
    )


def test_frechet_distance_of_known_moments(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    x, y = pair
    scale = np.abs(x).max(axis=0)
    a, b = x / scale, y / scale
    s1, s2 = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(s1 @ s2).real
    difference = a.mean(axis=0) - b.mean(axis=0)
    plug_in = difference @ difference + np.trace(s1 + s2 - 2 * root)
    value, error = frechet_distance(x, y)
    # The estimate from finite samples lies above its limit, by about a part in n.
    assert value == pytest.approx(plug_in, rel=0.1)
    assert value < plug_in
    assert error < 0.1 * value


def test_distances_of_equal_distributions_are_near_zero() -> None:
    rng = np.random.default_rng(5)
    x, y, far = rng.normal(size=(3, 1500, 4))
    far = far * 1.3
    for distance in (frechet_distance, kernel_distance):
        near, error = distance(x, y)
        assert abs(near) < 4 * error + 1e-3
        assert distance(x, far)[0] > 10 * abs(near)
        assert distance(x, y, seed=3) == distance(x, y, seed=3)
    with pytest.raises(ValueError, match=r"\(1500, 4\) and \(1500, 3\) do not fit"):
        kernel_distance(x, y[:, :3])


def test_kernel_distance_by_hand(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = (s[:300] for s in pair)
    scale = np.abs(x).max(axis=0)
    a, b = x / scale, y / scale
    rng = np.random.default_rng(7)
    values = []
    for _ in range(10):
        p, q = a[rng.choice(300, 300)], b[rng.choice(300, 300)]
        sums = [0.0, 0.0, 0.0]
        for i in range(300):
            within = (p @ p[i] / 3 + 1) ** 4
            sums[0] += within.sum() - within[i]
            within = (q @ q[i] / 3 + 1) ** 4
            sums[1] += within.sum() - within[i]
            sums[2] += ((q @ p[i] / 3 + 1) ** 4).sum()
        values.append((sums[0] + sums[1]) / (300 * 299) - 2 * sums[2] / 300**2)
    assert kernel_distance(x, y, seed=7)[0] == pytest.approx(np.median(values))


def test_neighbours_of_known_samples() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(2, 1000, 2))
    same = neighbour_figures(x, y)
    assert same["density"] == pytest.approx(1, abs=0.1)
    assert same["coverage"] == pytest.approx(1 - 2**-5, abs=0.02)
    assert min(same["precision"], same["recall"]) > 0.95
    # One half of the kinds of showers is missing: plausible, but not complete.
    half = neighbour_figures(x, y[y[:, 0] > 0])
    assert half["precision"] > 0.95
    assert half["recall"] < 0.7
    assert half["coverage"] < 0.7
    # Noise: all kinds are there, among much that is not.
    noisy = neighbour_figures(x, 3 * y)
    assert noisy["precision"] < 0.7
    far = neighbour_figures(x, y + 100)
    assert set(far.values()) == {0.0}


def test_correlations() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(3000, 2))
    y = np.stack([x[:, 0], x[:, 0]], axis=1)
    assert correlation_difference(x, x) == 0
    assert correlation_difference(x, y) == pytest.approx(1, abs=0.06)


def test_high_level_has_no_energies() -> None:
    e = np.random.default_rng(9).exponential(size=(5, STACK.n_cells))
    names = set(high_level(e, STACK, np.full(5, 100.0)))
    assert {"response", "depth", "x", "x[3]", "fraction[0]"} <= names
    assert not {"total", "layer[0]"} & names
