"""Bins and cuts that say nothing: flagged everywhere, and never NaN without a word."""

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_generator import ToyGenerator, make_card

from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.real_vs_generated import closure_table
from pidgan.efficiency.systematics import run_systematics
from pidgan.errors import PidganWarning

GENERATOR = ToyGenerator(card=make_card())
BINNING = {"P": [3e3, 1e4, 3e4, 6e4, 1e5], "ETA": [1.5, 3.0, 5.0]}
USELESS = {"DLLk > 900": (0.0, "none"), "DLLk < 900": (1.0, "all")}


def frame() -> pd.DataFrame:
    """Rows of which one bin has none, and another only negative weights."""
    rng = np.random.default_rng(3)
    x = np.stack([rng.uniform(3e3, 1e5, 5000), rng.uniform(1.5, 5, 5000)], axis=1)
    x = x[(x[:, 0] < 6e4) | (x[:, 1] < 3)]
    y = GENERATOR.generate(x, rng.standard_normal((len(x), 3)))
    columns = {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y[:, 0], "DLLp": y[:, 1]}
    negative = (x[:, 0] < 1e4) & (x[:, 1] < 3)
    return pd.DataFrame(columns).assign(weight=np.where(negative, -0.2, 1.0))


def test_a_map_covers_every_bin_with_an_uncertainty_that_says_so() -> None:
    found = run_systematics(GENERATOR, frame(), cuts="DLLk > 2", binning=BINNING)
    assert np.isfinite(found.nominal).all()
    assert found.n_eff[7] == 0
    # Against their neighbours in ETA, where the efficiency is nearly the same.
    assert found.error[0, 7] > 1.2 * found.error[0, 6]
    assert found.error[0, 0] > 1.2 * found.error[0, 1]


@pytest.mark.parametrize("cut", USELESS)
def test_useless_cuts_are_flagged_in_maps_and_tables(cut: str, tmp_path: Path) -> None:
    value, word = USELESS[cut]
    with pytest.warns(PidganWarning, match="fewer than 20 effective rows on one side"):
        found = run_systematics(GENERATOR, frame(), cuts=cut, binning=BINNING)
    assert found.flagged == (cut,)
    assert np.isfinite(found.nominal).all()
    np.testing.assert_allclose(found.nominal, value, atol=0.02)
    assert np.all((found.error > 0) & (found.error < 0.1))
    found.save(tmp_path / "map.json")
    assert EfficiencyMap.open(tmp_path / "map.json").flagged == (cut,)
    with pytest.warns(PidganWarning, match=f"{word} of the rows pass"):
        table = closure_table(GENERATOR, frame(), cuts=cut, binning={"ETA": 2})
    np.testing.assert_array_equal(table.real.efficiency, value)
    assert np.all(table.real.error > 0)
    assert table.real.few.all() == (value == 0)


def test_a_report_of_them_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("mplhep")
    pytest.importorskip("jinja2")
    from pidgan.report.map_page import MapInput, write_map_report

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PidganWarning)
        found = run_systematics(
            GENERATOR, frame(), cuts=["DLLk > 2", *USELESS], binning=BINNING
        )
        given = MapInput(map=found, generator=GENERATOR, reference=frame())
        page = write_map_report(given, tmp_path / "report").read_text()
    assert page.count("few rows") >= 2
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page)
