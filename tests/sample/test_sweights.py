"""Laws of sWeights on toys with known truth, and fits that must be refused."""

import numpy as np
import numpy.typing as npt
import pytest

from pidgan.errors import FitError, PidganWarning
from pidgan.sample.definition import Discriminant
from pidgan.sample.sweights import SweightResult, alternative_sweights, compute_sweights
from pidgan.simulation.calibration import MODES, draw_mass

SHAPE = MODES["dstar_k"].mass
D0 = Discriminant(branch="D0_M", range=SHAPE.window)
N = 20_000


def toy(
    n: int = N, seed: int = 1
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    is_signal = rng.random(n) < SHAPE.signal_fraction
    return draw_mass(SHAPE, is_signal, rng=rng), is_signal


@pytest.fixture(scope="module")
def result() -> SweightResult:
    return compute_sweights(toy()[0], D0)


@pytest.mark.parametrize("signal", ["double_gauss", "crystal_ball"])
@pytest.mark.parametrize("background", ["exponential", "polynomial"])
def test_laws(signal: str, background: str) -> None:
    mass, is_signal = toy()
    shape = Discriminant.model_validate(
        {
            "branch": "m",
            "range": SHAPE.window,
            "signal": signal,
            "background": background,
        }
    )
    fit = compute_sweights(mass, shape)
    n_signal, error = fit.yields["signal"]
    np.testing.assert_allclose(fit.weights.sum(), n_signal, rtol=1e-9)
    np.testing.assert_allclose(n_signal + fit.yields["background"][0], N, rtol=1e-9)
    assert abs(n_signal - is_signal.sum()) < 4 * error
    assert fit.weights.min() < 0
    assert fit.p_value > 1e-3
    assert fit.counts.sum() == N
    assert (fit.signal + fit.background).sum() == pytest.approx(N)


def test_weights_pick_signal_and_reject_background(result: SweightResult) -> None:
    """Integrals of w_s over the signal and background densities are 1 and 0."""
    centres = (result.edges[1:] + result.edges[:-1]) / 2
    mass = toy()[0]
    order = np.argsort(mass)
    weight = np.interp(centres, mass[order], result.weights[order])
    for density, expected in ((result.signal, 1.0), (result.background, 0.0)):
        average = np.sum(weight * density) / density.sum()
        assert average == pytest.approx(expected, abs=0.02)


def test_other_fits_give_almost_the_same_weights(result: SweightResult) -> None:
    mass, is_signal = toy()
    found = alternative_sweights(mass, D0)
    assert list(found) == ["background", "signal", "range"]
    for name, weights in found.items():
        kept = weights != 0
        same = np.corrcoef(weights[kept], result.weights[kept])[0, 1]
        assert same > 0.95, name
        assert weights.sum() == pytest.approx(is_signal.sum(), rel=0.05), name
    low, high = D0.range
    outside = (mass < low + 0.1 * (high - low)) | (mass > high - 0.1 * (high - low))
    assert outside.any()
    assert not found["range"][outside].any()


def test_a_fit_that_does_not_describe_the_data_is_no_alternative() -> None:
    # A single Gaussian is wrong for this peak, and so is no alternative to two.
    mass = toy(200_000)[0]
    shape = Discriminant(branch="D0_M", range=SHAPE.window, signal="gauss")
    assert list(alternative_sweights(mass, shape)) == ["signal"]


def test_a_control_variable_is_recovered(result: SweightResult) -> None:
    _, is_signal = toy()
    rng = np.random.default_rng(5)
    control = np.where(is_signal, rng.normal(2.0, 1.0, N), rng.exponential(1.0, N))
    edges = np.linspace(-1, 5, 13)
    weighted, _ = np.histogram(control, edges, weights=result.weights)
    variance, _ = np.histogram(control, edges, weights=result.weights**2)
    truth, _ = np.histogram(control[is_signal], edges)
    pulls = (weighted - truth) / np.sqrt(variance)
    assert np.sqrt(np.mean(pulls**2)) < 1.5
    assert abs(pulls).max() < 4


def test_pulls_of_the_yield() -> None:
    pulls = []
    for seed in range(12):
        value, error = compute_sweights(toy(8000, seed)[0], D0).yields["signal"]
        pulls.append((value - 8000 * SHAPE.signal_fraction) / error)
    assert np.sqrt(np.mean(np.square(pulls))) < 2


def test_order_of_rows_does_not_matter(result: SweightResult) -> None:
    mass, _ = toy()
    backwards = compute_sweights(mass[::-1], D0)
    np.testing.assert_allclose(backwards.weights[::-1], result.weights, rtol=1e-9)


def test_half_a_million_rows_are_a_matter_of_seconds() -> None:
    mass, _ = toy(500_000)
    assert compute_sweights(mass, D0).weights.shape == (500_000,)


def test_a_poor_fit_warns() -> None:
    mass, is_signal = toy()
    rng = np.random.default_rng(3)
    mass[~is_signal] = rng.normal(1895.0, 1.0, (~is_signal).sum())  # no exponential
    with pytest.warns(PidganWarning, match="describes the data poorly"):
        compute_sweights(mass, D0)


def test_unusable_rows_are_refused() -> None:
    mass, _ = toy()
    with pytest.raises(FitError, match="at least 100"):
        compute_sweights(mass[:99], D0)
    with pytest.raises(FitError, match="1 of 20000 rows are NaN or outside"):
        compute_sweights(np.append(mass[1:], np.nan), D0)
    with pytest.raises(ValueError, match=r"expected \(n,\)"):
        compute_sweights(mass.reshape(2, -1), D0)


def test_background_alone_is_refused() -> None:
    flat = np.random.default_rng(4).uniform(*SHAPE.window, 5000)
    with pytest.raises(FitError, match=r"no signal|did not converge|no background|ran"):
        compute_sweights(flat, D0)


def test_signal_alone_is_refused() -> None:
    rng = np.random.default_rng(4)
    pure = draw_mass(SHAPE, np.ones(5000, dtype=bool), rng=rng)
    with pytest.raises(FitError, match="unweighted = true"):
        compute_sweights(pure, D0)


def test_a_range_wider_than_the_rows_is_pointed_out() -> None:
    wide = D0.model_copy(update={"range": (1780.0, 1960.0)})
    with pytest.raises((FitError, PidganWarning), match=r"rows span 1825.* to 19"):
        compute_sweights(toy()[0], wide)
