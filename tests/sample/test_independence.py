"""Whether discriminant and response are independent within signal and background."""

import os

import numpy as np
import pytest

from pidgan.sample.definition import Discriminant
from pidgan.sample.independence import check_independence, mass_and_conditions

SHAPE = Discriminant(branch="m", range=(0.0, 1.0), unit="1", signal="gauss")
MEAN, WIDTH = 0.45, 0.08
TOYS = int(os.environ.get("PIDGAN_TOYS", "12"))


def draw(
    seed: int, kind: str = "none", size: float = 0.0, n: int = 8000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mass, response and conditions, of which purity, mass and response depend."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, 2))
    is_signal = rng.random(n) < 0.5 + 0.4 * x[:, 0]
    rate = 0.5 + 2.5 * x[:, 1]
    m = -np.log1p(rng.random(n) * np.expm1(-rate)) / rate
    m[is_signal] = MEAN + WIDTH * rng.normal(size=is_signal.sum())
    t = (m - MEAN) / WIDTH
    signal = 1 / (1 + np.exp(-(2.5 - 3 * x[:, 0] + x[:, 1])))
    background = 1 / (1 + np.exp(1 - 2 * x[:, 1]))
    if kind == "slope of the background":
        background = background + size * (2 * m - 1)
    if kind == "curvature of the background":
        background = background + size * (3 * (2 * m - 1) ** 2 - 1) / 2
    if kind == "position of the signal":
        signal = signal + size * t
    if kind == "width of the signal":
        signal = signal + size * (t * t - 1)
    passed = rng.random(n) < np.where(is_signal, signal, background)
    inside = (m > 0) & (m < 1)
    return m[inside], passed[inside].astype(float), x[inside]


def p_value(seed: int, *given: object) -> float:
    m, r, x = draw(seed, *given)  # type: ignore[arg-type]
    return check_independence(m, {"r": r}, x, SHAPE)["r"].p_value


def test_the_p_value_is_uniform_without_a_dependence() -> None:
    values = np.array([p_value(seed) for seed in range(TOYS)])
    for level in (0.05, 0.32):
        share, error = np.mean(values < level), np.sqrt(level * (1 - level) / TOYS)
        assert abs(share - level) < 3.5 * error + 0.01


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("slope of the background", 0.2),
        ("curvature of the background", 0.3),
        ("position of the signal", 0.05),
        ("width of the signal", 0.08),
    ],
)
def test_a_dependence_is_found_where_it_is(kind: str, size: float) -> None:
    m, r, x = draw(1, kind, size)
    found = check_independence(m, {"r": r}, x, SHAPE)["r"]
    assert found.p_value < 1e-3
    assert max(found.pulls, key=lambda name: abs(found.pulls[name])) == kind
    assert found.pulls[kind] > 0


def test_the_test_does_not_depend_on_units() -> None:
    m, r, x = draw(2)
    plain = check_independence(m, {"r": r}, x, SHAPE)["r"]
    scaled = SHAPE.model_copy(update={"range": (1000.0, 1200.0), "unit": "MeV"})
    conditions = np.stack([1e5 * x[:, 0] ** 3, -x[:, 1]], axis=1)
    other = check_independence(1000 + 200 * m, {"r": 3 * r - 1}, conditions, scaled)
    assert other["r"].chi2 == pytest.approx(plain.chi2, rel=1e-3)


def test_a_mass_that_depends_on_a_condition_is_found_and_allowed() -> None:
    m, r, x = draw(3)
    found = mass_and_conditions(m, {"x0": x[:, 0], "x1": x[:, 1]}, SHAPE)
    # The slope of the background depends on x1 alone.
    assert found["x1"].p_value < 1e-3
    assert found["x0"].p_value > 1e-3
    assert check_independence(m, {"r": r}, x, SHAPE)["r"].p_value > 1e-3


def test_a_rare_outcome_is_marked() -> None:
    m, _, x = draw(4)
    rare = np.zeros(len(m))
    rare[:20] = 1
    found = check_independence(m, {"rare": rare, "none": 0 * rare}, x, SHAPE)
    assert found["rare"].few
    assert found["none"].few
    assert found["none"].p_value == 1.0
