"""Bins inside which the correction changes are told, and others are not."""

import numpy as np
import pandas as pd
import pytest
from toy_generator import ToyGenerator, make_card

from pidgan.efficiency.coarse_bins import NAME, slopes_in_bins
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.efficiency.systematics import run_systematics
from pidgan.errors import PidganWarning

CUT = "DLLk > 2"
FINE = {"P": (3e3, 6e3, 9e3, 12e3, 16e3, 2e4, 3e4, 4e4, 6e4, 1e5), "ETA": (1.5, 3, 5)}


def reference(*, tilt: float, n: int = 30_000) -> pd.DataFrame:
    """Rows whose response is the toy's, moved by an amount that depends on P."""
    rng = np.random.default_rng(5)
    x = np.stack([rng.uniform(3e3, 6e4, n), rng.uniform(1.5, 5, n)], axis=1)
    y = ToyGenerator(card=make_card()).generate(x, rng.standard_normal((n, 3)))
    y = y + tilt * np.sin(x[:, :1] / 6e3)
    columns = {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y[:, 0], "DLLp": y[:, 1]}
    return pd.DataFrame(columns).assign(weight=rng.choice([1.0, 1.0, 1.0, -0.5], n))


def test_a_correction_that_changes_inside_bins_is_told() -> None:
    generator = ToyGenerator(card=make_card())
    given = {"cuts": CUT, "progress": False}
    with pytest.warns(PidganWarning, match=r"the bins in P are too coarse: .* more bi"):
        found = run_systematics(
            generator, reference(tilt=1.2), binning={"P": (3e3, 25e3, 1e5)}, **given
        )
    assert list(found.metadata[NAME]) == [CUT]
    assert list(found.metadata[NAME][CUT]) == ["P"]
    for tilt, bins in ((1.2, FINE), (0.0, {"P": (3e3, 25e3, 1e5)}), (0.0, FINE)):
        fine: EfficiencyMap = run_systematics(
            generator, reference(tilt=tilt), binning=bins, **given
        )
        assert NAME not in fine.metadata


def test_the_slope_is_that_of_the_difference() -> None:
    rng = np.random.default_rng(1)
    pulls = []
    for _ in range(60):
        x, w = rng.uniform(0, 3, 4000), rng.choice([1.0, 2.0, -0.5], 4000)
        real = rng.random(4000) < 0.5 + 0.1 * np.floor(x) + 0.2 * (x % 1 - 0.5)
        rows = ComparedRows(
            species="K+",
            cuts=("y > 0",),
            columns={"x": x},
            weights=w,
            real=real[np.newaxis],
            generated=np.full((1, 4000), 2),
            repeats=4,
        )
        slope, error = slopes_in_bins(rows, {"x": (0.0, 1.0, 2.0, 3.0)})["x"]
        pulls.append(float((slope[0] - 0.2) / error[0]))
    assert abs(np.mean(pulls)) < 4 / np.sqrt(60)
    assert 0.7 < np.std(pulls) < 1.35
