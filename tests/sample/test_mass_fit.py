"""Laws of the mass fit on toys: it finds the peak, and its sWeights are not biased."""

import os
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pidgan.errors import FitError
from pidgan.sample import mass_fit
from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_shapes import BACKGROUNDS, SIGNALS, Component
from pidgan.sample.own_row import _NODES, _curves, _without_own_row
from pidgan.sample.sweights import compute_sweights

#: Toys at each share of signal; the bounds below are meant for 200.
N_TOYS = int(os.environ.get("PIDGAN_TOYS", "14"))
MOST_BIAS, MOST_PULL = 0.003, 0.1

LOW, HIGH = 1820.0, 1910.0
MEAN, SIGMA, SLOPE, EFFICIENCY = 1865.0, 8.0, 120.0, 0.9
D = Discriminant(
    branch="M", range=(LOW, HIGH), signal="gauss", background="exponential"
)
PEAK = Component(shape=SIGNALS["gauss"], parameters=(0.5, SIGMA / (HIGH - LOW)))
FLOOR = Component(shape=BACKGROUNDS["exponential"], parameters=((HIGH - LOW) / SLOPE,))
Floats = NDArray[np.float64]


def toy(seed: int, share: float, n: int = 60_000) -> tuple[Floats, NDArray[Any], int]:
    """Masses, whether each row passes a cut, and the number of rows of signal."""
    rng = np.random.default_rng(seed)
    n_signal = int(rng.binomial(n, share))
    x = rng.exponential(SLOPE, 3 * n) + LOW
    peak = rng.normal(MEAN, SIGMA, n_signal)
    mass = np.concatenate([peak, x[x < HIGH][: n - n_signal]])
    quantile = np.where(np.arange(n) < n_signal, 1.2816, -0.5244)
    passes = rng.normal(quantile, 1.0) > 0
    return mass, passes, n_signal


def true_weights(mass: Floats, share: float) -> Floats:
    """SWeights of the true shapes and yields, which know nothing of the rows."""
    x = np.linspace(0, 1, 20_001)
    pair = np.stack([PEAK.density(x), FLOOR.density(x)])
    yields = np.array([share, 1 - share])
    matrix = (pair / (yields @ pair)) @ pair.T / len(x)
    position = (mass - LOW) / (HIGH - LOW)
    pair = np.stack([PEAK.density(position), FLOOR.density(position)])
    return np.asarray(np.linalg.inv(matrix)[0] @ pair / (yields @ pair))


def deviation(weights: Floats, passes: NDArray[Any]) -> NDArray[Any]:
    """Efficiency minus the true one, and the same in units of its uncertainty."""
    efficiency = weights[passes].sum() / weights.sum()
    error = np.sqrt(np.sum((weights * (passes - efficiency)) ** 2)) / weights.sum()
    return np.array([efficiency - EFFICIENCY, (efficiency - EFFICIENCY) / error])


@pytest.mark.parametrize("share", [0.03, 0.3, 0.9])
def test_efficiencies_are_not_biased_by_the_fit(share: float) -> None:
    """The weights of the true shapes, on the same rows, take away the fluctuations.

    What then remains is due to the fit. Any efficiency, P / S of two sums that
    fluctuate together, also has a bias of order 1 / n_eff.
    """
    changes = []
    for seed in range(160, 160 + N_TOYS):  # 171 and 192 once had no signal
        mass, passes, _ = toy(seed, share)
        inside = (mass > LOW) & (mass < HIGH)
        mass, passes = mass[inside], passes[inside]
        fitted = compute_sweights(mass, D).weights
        true = true_weights(mass, share)
        changes.append(deviation(fitted, passes) - deviation(true, passes))
    (bias, pull), spread = np.mean(changes, axis=0), np.std(changes, axis=0)
    # Fewer toys know the mean less well than the bound.
    few = 2.5 * spread / np.sqrt(N_TOYS) if N_TOYS < 200 else np.zeros(2)
    print(f"{share:.0%} signal, {N_TOYS} toys: bias {bias:+.4f}, mean pull {pull:+.3f}")
    assert abs(bias) <= MOST_BIAS + few[0]
    assert abs(pull) <= MOST_PULL + few[1]


@pytest.mark.skipif(N_TOYS < 200, reason="needs PIDGAN_TOYS=200")
@pytest.mark.parametrize("share", [0.03, 0.3, 0.9])
def test_efficiencies_are_the_true_ones(share: float) -> None:
    """As above, but for the true efficiency, in a sample with 500 effective rows.

    The true weights of background sum to zero on average. Subtracting their sum takes
    away fluctuations and no bias.
    """
    found = []
    for seed in range(1000, 1000 + N_TOYS):
        mass, passes, _ = toy(seed, share, 250_000)
        inside = (mass > LOW) & (mass < HIGH)
        mass, passes = mass[inside], passes[inside]
        true = true_weights(mass, share) * (passes - EFFICIENCY)
        chance = true.sum() / (share * 250_000), true.sum() / np.sqrt((true**2).sum())
        found.append(deviation(compute_sweights(mass, D).weights, passes) - chance)
    bias, pull = np.mean(found, axis=0)
    print(f"{share:.0%} signal, {N_TOYS} toys: bias {bias:+.4f}, mean pull {pull:+.3f}")
    assert abs(bias) <= MOST_BIAS
    assert abs(pull) <= MOST_PULL


@pytest.mark.parametrize("background", ["exponential", "polynomial"])
def test_the_weight_of_a_row_is_that_of_a_fit_without_it(background: str) -> None:
    counts, edges = np.histogram(toy(3, 0.3, 20_000)[0], 200, (LOW, HIGH))
    edges = (edges - LOW) / (HIGH - LOW)
    shapes = D.model_copy(update={"background": background})

    def fit(counts: Floats) -> mass_fit.MassFit:
        return mass_fit.fit_mass(counts.astype(float), edges, shapes, "toy")

    whole = fit(counts)
    yields = (float(whole.values[0]), float(whole.values[1]))
    change = _without_own_row(whole, yields)
    for place in (80, 92, 100, 115):  # beside the peak, on its flank, at the top
        curves = []
        for rows in (-0.5, 0.5):
            other = counts.astype(float)
            other[place] *= 1 + rows
            found = fit(other)
            curves.append(_curves(found, found.values)[0])
        centre = (edges[place] + edges[place + 1]) / 2
        moved = np.interp(centre, _NODES, curves[0] - curves[1])
        expected = counts[place] * np.interp(centre, _NODES, change)
        assert moved == pytest.approx(expected, rel=0.3, abs=0.005), place


@pytest.mark.parametrize(
    ("seed", "value", "error"),
    # Unbinned fits of the same shapes that start at the truth.
    [(171, 1311, 221), (192, 1560, 222), (231, 1639, 247), (238, 1518, 199)],
)
def test_a_small_peak_is_found(seed: int, value: int, error: int) -> None:
    mass = toy(seed, 0.03)[0]
    fit = compute_sweights(mass[(mass > LOW) & (mass < HIGH)], D)
    found, its_error = fit.yields["signal"]
    assert found == pytest.approx(value, abs=0.1 * error)
    assert its_error == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize("signal", ["gauss", "double_gauss", "crystal_ball"])
def test_no_minimum_is_lower_than_the_one_found(signal: str) -> None:
    """Peaks anywhere on falling and rising backgrounds, against fits from the truth."""
    rng = np.random.default_rng(1)
    shape = D.model_copy(update={"range": (0.0, 1.0), "signal": signal})
    start = SIGNALS[signal], BACKGROUNDS["exponential"]
    for _ in range(3 if signal == "crystal_ball" else 10):
        n, width = int(10 ** rng.uniform(3.5, 5)), 10 ** rng.uniform(-1.8, -1.1)
        mean, rate = rng.uniform(0.25, 0.75), rng.uniform(-2, 6)
        share = min(0.95, rng.uniform(10, 60) * np.sqrt(3 * width / n))
        peak = rng.normal(mean, width, int(n * share))
        floor = -np.log1p(-rng.random(n) * -np.expm1(-rate)) / rate
        counts, edges = np.histogram(np.append(peak, floor), 200, (0, 1))
        given = counts.astype(float), edges
        truth = mass_fit._minimise(*given, *start, (mean, width, share), "toy")
        assert truth.valid
        fit = mass_fit.fit_mass(*given, shape, "toy")
        assert truth.fcn(fit.values) < truth.fval + 0.5, (n, mean, width, rate)


def test_a_peak_whose_shape_is_not_determined_is_not_called_no_signal() -> None:
    """Two Gaussians of any ratio, for a peak of six standard deviations."""
    shape = D.model_copy(update={"signal": "double_gauss"})
    refused = []
    for seed in range(160, 172):
        mass = toy(seed, 0.03)[0]
        try:
            compute_sweights(mass[(mass > LOW) & (mass < HIGH)], shape)
        except FitError as error:
            refused.append(str(error))
    assert len(refused) < 4
    for message in refused:
        assert "finds a peak of" in message
        assert "try a simpler 'signal' than 'double_gauss'" in message


def test_no_convergence_is_not_called_no_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failed:
        valid = False

    mass = toy(171, 0.03)[0]
    mass = mass[(mass > LOW) & (mass < HIGH)]
    flat = np.random.default_rng(4).uniform(LOW, HIGH, 20_000)
    with pytest.raises(FitError, match=r"finds no signal: .* sigma, expected 4"):
        compute_sweights(flat, D)
    monkeypatch.setattr(mass_fit, "_minimise", lambda *_: Failed())
    with pytest.raises(FitError, match=r"did not converge from 4 starting points"):
        compute_sweights(mass, D)


@pytest.mark.parametrize(
    ("signal", "shape", "slope"),
    [
        ("gauss", (0.3, 0.01), -1.0),  # no background at the upper end
        ("crystal_ball", (0.5, 0.1, 5.0, 4.0, 5.0, 4.0), 0.1),  # no tail in the range
    ],
)
def test_what_has_no_density_in_the_range_changes_no_weight(
    signal: str, shape: tuple[float, ...], slope: float
) -> None:
    values = np.array([5e3, 2e4, *shape, slope])
    free = tuple(value not in (-1.0, 5.0) for value in values)
    fit = mass_fit.MassFit(
        signal=SIGNALS[signal],
        background=BACKGROUNDS["polynomial"],
        values=values,
        errors=np.full(len(values), 1e-3),
        free=free,
    )
    change = _without_own_row(fit, (5e3, 2e4))
    assert np.isfinite(change).all()
    assert 0 < np.abs(change).max() < 0.1


def test_background_may_fall_to_zero() -> None:
    rng = np.random.default_rng(1)
    background = rng.triangular(0, 0, 1, 20_000)
    background = background[(background < 0.9) | (rng.random(20_000) < 0.5)]
    mass = 1800 + 100 * np.concatenate([rng.normal(0.3, 0.01, 5_000), background])
    found = compute_sweights(
        mass,
        Discriminant(
            branch="M", range=(1800, 1900), signal="gauss", background="polynomial"
        ),
    )
    value, error = found.yields["signal"]
    assert abs(value - 5_000) < 3 * error
    assert found.weights.sum() == pytest.approx(value, rel=1e-12)
