"""Errors where no reference row passes a cut, or none fails."""

import itertools

import numpy as np
import pandas as pd
import pytest
from toy_generator import ToyGenerator, location, make_card

from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.map_averages import average, map_sizes
from pidgan.efficiency.real_vs_generated import closure_table
from pidgan.efficiency.systematics import run_systematics
from pidgan.sample.weights import n_eff

GENERATOR = ToyGenerator(card=make_card())
BINNING = {"P": (3e3, 1e4, 3e4, 1e5), "ETA": (1.5, 3.0, 4.5, 5.0)}
OUTSIDE = "ETA < 4.5"
CUTS = (f"DLLk > 2 & {OUTSIDE}", f"DLLk > 2 or not ({OUTSIDE})", "DLLk > 2")
"""Cuts that no row of the last slice passes, that all pass, and that some pass."""

pytestmark = pytest.mark.filterwarnings("ignore:cut .* fewer than 20")


def rows(n_last: int, *, signed: bool = False, n: int = 4000) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    x = np.stack([rng.uniform(3e3, 1e5, n), rng.uniform(1.5, 4.5, n)], axis=1)
    x[:n_last, 1] = rng.uniform(4.5, 5.0, n_last)
    y = location(x) + rng.standard_normal((n, 2))
    w = rng.choice([1.2, 1.0, -0.4], n) if signed else np.ones(n)
    columns = {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y[:, 0], "DLLp": y[:, 1]}
    return pd.DataFrame(columns | {"weight": w})


def last_slice(found: EfficiencyMap) -> tuple[np.ndarray, np.ndarray]:
    """Corrected efficiencies of the last bins in ETA, and their errors."""
    inside = np.arange(9).reshape(3, 3)[:, 2]
    mean = average(found, map_sizes(found), inside)
    return mean.corrected, mean.error


@pytest.mark.parametrize(
    ("n_last", "signed"), [(3, False), (12, False), (12, True), (40, True)]
)
def test_few_rows_that_agree_have_the_error_of_a_limit(
    n_last: int, signed: bool
) -> None:
    frame = rows(n_last, signed=signed)
    found = run_systematics(GENERATOR, frame, cuts=CUTS, binning=BINNING)
    bare = run_systematics(
        GENERATOR, frame, cuts=CUTS, binning=BINNING, variations=["binning"]
    )
    limit = 1 / (n_eff(frame["weight"][frame["ETA"] > 4.5]) + 1)
    (none, everything, _some), error = last_slice(found)
    assert abs(none) < 0.01
    assert abs(everything - 1) < 0.01
    assert error[0] == pytest.approx(limit, rel=0.1)
    assert error[1] == pytest.approx(limit, rel=0.1)
    # It is the limit that a table has.
    edges = {"ETA": (1.5, 4.5, 5.0)}
    table = closure_table(GENERATOR, frame, cuts=CUTS[0], binning=edges)
    if not signed:
        assert float(table.real.upper[0, 1]) == pytest.approx(limit)
    # Nothing changes elsewhere, nor where rows have both outcomes.
    assert last_slice(bare)[1][2] == error[2]
    assert np.array_equal(bare.covariance, found.covariance)
    for name, shift in found.variations.items():
        if name.startswith("limit"):
            assert not shift[2].any()
            assert not shift.reshape(3, 3, 3)[:, :, :2].any()


def test_a_limit_falls_with_the_rows_and_is_there_without_any() -> None:
    errors = []
    for n_last in (0, 1, 4, 16, 64):
        frame = rows(n_last, n=6000)
        found = run_systematics(GENERATOR, frame, cuts=CUTS[0], binning=BINNING)
        inside = np.arange(9).reshape(3, 3)[:, 2]
        errors.append(float(average(found, np.ones(9), inside).error[0]))
    assert errors[0] == pytest.approx(1 / np.sqrt(3), rel=0.05)
    assert all(a > b for a, b in itertools.pairwise(errors))


def test_a_limit_is_a_part_of_the_error_of_an_analysis() -> None:
    found = run_systematics(GENERATOR, rows(3), cuts=CUTS[0], binning=BINNING)
    own = found.averages[CUTS[0]]
    assert own["error_limit"] > 0
    assert own["corrected_error"] > own["error_calibration"]
    assert "limit" in found.variations
