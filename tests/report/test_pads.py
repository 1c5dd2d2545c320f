"""Responses of pads: moments, profiles and their chi2 with its floor."""

import os
from pathlib import Path

import numpy as np
import pytest

from pidgan.report.pads import (
    MOMENTS,
    amplitude_spectrum,
    chi2_floor,
    image_moments,
    moments_chi2,
    profile,
)


def blobs(n: int, seed: int, *, shift: float = 0.0, width: float = 1.0):
    """Draw images with a centre that moves with a condition in 0 ... 1."""
    rng = np.random.default_rng(seed)
    x = rng.random(n)
    pad = 3.5 + x + shift + 0.3 * rng.standard_normal(n)
    time = 7.5 + 0.5 * rng.standard_normal(n)
    sizes = width * np.exp(0.1 * rng.standard_normal((2, n)))
    i, j = np.arange(8)[:, None], np.arange(16)
    a = np.exp(
        -0.5 * ((i - pad[:, None, None]) / sizes[0, :, None, None]) ** 2
        - 0.5 * ((j - time[:, None, None]) / sizes[1, :, None, None]) ** 2
    )
    amplitude = 1000.0 * rng.gamma(4.0, 0.25, n)[:, None, None]
    return rng.poisson(amplitude * a).astype(float), x


def test_moments_of_a_gaussian_image() -> None:
    i, j = np.arange(40)[:, None], np.arange(60)
    u, v = i - 20.0, j - 30.0
    # Covariance [[4, 3], [3, 9]].
    image = np.exp(-0.5 * (9 * u**2 - 6 * u * v + 4 * v**2) / (4 * 9 - 9))
    found = image_moments(image[None])[0]
    np.testing.assert_allclose(found[:5], [20, 30, 4, 9, 3], rtol=1e-4)
    assert found[5] == pytest.approx(image.sum())


def test_moments_ignore_the_scale_and_follow_the_place() -> None:
    images, _ = blobs(20, 1)
    first, scaled = image_moments(images), image_moments(7 * images)
    np.testing.assert_allclose(first[:, :5], scaled[:, :5])
    moved = image_moments(np.pad(images, ((0, 0), (2, 0), (3, 0))))
    np.testing.assert_allclose(moved - first, [[2, 3, 0, 0, 0, 0]] * 20, atol=1e-9)


def test_empty_images_have_no_centre() -> None:
    found = image_moments(np.zeros((1, 8, 16)))
    assert np.isnan(found[0, :5]).all()
    assert found[0, 5] == 0.0


def test_bad_images() -> None:
    with pytest.raises(ValueError, match=r"shape \(8, 16\), expected"):
        image_moments(np.zeros((8, 16)))
    with pytest.raises(ValueError, match="negative or not finite"):
        image_moments(-np.ones((1, 2, 2)))


def test_errors_of_a_profile_are_those_of_repeated_samples() -> None:
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(400):
        y = rng.exponential(size=300)
        found = profile(np.zeros(300), y, [-1, 1])
        drawn.append([v[0] for v in vars(found).values()][1:5])
    mean, deviation, mean_error, deviation_error = np.transpose(drawn)
    assert mean.std() == pytest.approx(mean_error.mean(), rel=0.12)
    assert deviation.std() == pytest.approx(deviation_error.mean(), rel=0.2)


def test_bins_of_a_profile_with_few_rows_do_not_count() -> None:
    found = profile([0.1] * 7 + [1.5] * 9 + [2.0], np.arange(17.0), [0, 1, 2])
    assert np.isnan(found.mean[0])
    assert found.rows.tolist() == [7, 10]
    assert found.mean[1] == pytest.approx(np.arange(7.0, 17.0).mean())


def test_equal_samples_have_a_chi2_near_the_number_of_terms() -> None:
    a, x = blobs(6000, 1)
    b, z = blobs(6000, 2)
    found = moments_chi2(a, b, x, z)
    assert found.terms == 2 * 19 * len(MOMENTS)
    assert 0.7 < found.value / found.terms < 1.4
    floor = chi2_floor(a, x, splits=3)
    assert floor.terms == found.terms
    assert 0.7 < floor.value / floor.terms < 1.4
    assert sum(found.by_moment.values()) == pytest.approx(found.value)


@pytest.mark.parametrize(
    ("change", "moment"),
    [({"shift": 0.1}, "pad_centre"), ({"width": 1.1}, "pad_width")],
)
def test_a_distortion_shows_in_its_moment(change, moment) -> None:
    a, x = blobs(6000, 1)
    b, z = blobs(6000, 2, **change)
    found = moments_chi2(a, b, x, z)
    expected = found.terms / len(MOMENTS)
    assert found.by_moment[moment] > 4 * expected
    assert found.value > 2 * chi2_floor(a, x, splits=2).value


def test_constant_conditions_are_left_out() -> None:
    a, x = blobs(3000, 1)
    both = np.stack([x, np.full(len(x), 16.941)], axis=1)
    assert moments_chi2(a, a, both).terms == moments_chi2(a, a, x).terms
    assert moments_chi2(a, a, x).value == 0.0
    with pytest.raises(ValueError, match="every condition is constant"):
        moments_chi2(a, a, both[:, 1])


def test_spectrum_and_zeros() -> None:
    images, _ = blobs(50, 1)
    edges = np.linspace(0.0, 5.0, 11)
    shares, zeros = amplitude_spectrum(images, edges)
    assert shares.sum() + zeros == pytest.approx(1.0)
    assert zeros == pytest.approx(np.mean(images < 1.0))


FOLDER = os.environ.get("PIDGAN_SHARED_DATA", "")


@pytest.mark.skipif(
    not (FOLDER and Path(FOLDER, "mpd_tpc_v2.npz").is_file()), reason="no shared data"
)
def test_real_responses_of_mpd() -> None:
    with np.load(Path(FOLDER, "mpd_tpc_v2.npz")) as data:
        images = data["images_adc"]
        x = np.stack([data["crossing_angle_deg"], data["dip_angle_deg"]], axis=1)
    floor = chi2_floor(images[:5000], x[:5000])
    assert floor.terms == 228
    assert 0.8 < floor.value / floor.terms < 1.5
