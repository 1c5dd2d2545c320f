"""The report of an efficiency map: what it shows, for maps of any kind."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toy_generator import ToyGenerator, make_card, make_sample
from toy_map import combine_rows

from pidgan.bundle.shipped import shipped_path
from pidgan.efficiency.binning import bin_index
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.map_averages import average, map_sizes
from pidgan.efficiency.real_vs_generated import closure_table
from pidgan.efficiency.systematics import run_systematics
from pidgan.errors import MapError, PidganError

pytest.importorskip("mplhep")
pytest.importorskip("jinja2")

from pidgan.report.map_page import MapInput, _smoothed, _view, write_map_report

KAON = ToyGenerator(card=make_card())
PION = ToyGenerator(
    card=make_card(species="pi+", sample=make_sample(species="pi+")), offset=-1.5
)


def rows(generator: ToyGenerator, *, shift: float, n: int = 6000) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    x = np.stack([3e3 + rng.gamma(2, 9e3, n), rng.normal(3.2, 0.6, n)], axis=1)
    x = x[(x[:, 0] < 1e5) & (x[:, 1] > 1.5) & (x[:, 1] < 5)]
    y = generator.generate(x, rng.standard_normal((len(x), 3))) + shift
    columns = {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y[:, 0], "DLLp": y[:, 1]}
    return pd.DataFrame(columns).assign(weight=rng.choice([1.0, 1.0, -0.3], len(x)))


def given(generator: ToyGenerator, **options: Any) -> MapInput:
    frame = rows(generator, shift=-0.3)
    found = run_systematics(generator, frame, repeats=2, **options)
    return MapInput(map=found, generator=generator, reference=frame)


@pytest.fixture(scope="module")
def kaon() -> MapInput:
    return given(KAON, cuts=["DLLk > 1", "DLLk > 2"])


def captions(page: Path) -> list[str]:
    return re.findall(r"<figcaption>([^<]*)", page.read_text())


def test_every_cut_has_its_figures(kaon: MapInput, tmp_path: Path) -> None:
    pion = given(PION, cuts=["DLLk > 1", "DLLk > 2"])
    page = write_map_report(kaon, tmp_path / "report", misid=[pion])
    found = captions(page)
    # A breakdown, and for each cut two curves and two maps, of two species.
    assert len(found) == 2 + 2 * 2 * 4
    assert sum(text.startswith("MisID of pi+ against") for text in found) == 4
    text = page.read_text()
    assert "Efficiency of K+, DLLk &gt; 1" in text
    assert "MisID of pi+, DLLk &gt; 2" in text
    with pytest.raises(PidganError, match="exists"):
        write_map_report(kaon, tmp_path / "report")


def test_a_map_of_one_condition_has_curves_alone(tmp_path: Path) -> None:
    one = given(KAON, cuts="DLLk > 2", binning={"P": [3e3, 1e4, 2e4, 1e5]})
    page = write_map_report(one, tmp_path / "report")
    page.write_text("old")
    found = captions(write_map_report(one, tmp_path / "report", overwrite=True))
    assert [text.split(":")[0] for text in found] == [
        "Efficiency of K+",
        "Efficiency of K+ against P for DLLk &gt; 2",
    ]


def test_slices_add_up_to_the_whole(kaon: MapInput) -> None:
    view = _view(kaon)
    whole, error = view.mean(0, np.arange(len(view.weights)))
    truth = view.overall.real.efficiency[0]
    assert whole == pytest.approx(truth, abs=4 * error)
    shape = kaon.map.shape
    weights = view.weights.reshape(shape)
    difference, uncertainty = _smoothed(view, 0, "P", "ETA")
    use = weights > 0
    np.testing.assert_allclose(
        difference[use], -kaon.map.discrepancy[0].reshape(shape)[use]
    )
    np.testing.assert_allclose(uncertainty[use], kaon.map.error[0].reshape(shape)[use])
    assert np.isnan(difference[~use]).all()


def cells(page: Path) -> list[list[str]]:
    """Texts of the rows of the first table of a page."""
    table = page.read_text().split("<table")[1].split("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, flags=re.DOTALL)
    return [
        [re.sub("<[^>]+>", "", cell).strip() for cell in re.findall("<td.*?</td>", row)]
        for row in rows[1:]
    ]


@pytest.mark.parametrize("where", [None, "DLLp > 0 & ETA > 2"])
def test_a_number_that_is_shown_twice_is_one_number(
    where: str | None, tmp_path: Path
) -> None:
    one = given(
        KAON, cuts=["DLLk > 1", "DLLk > 2"], where=where, scales={"P": 1.05}, seed=3
    )
    one.map.save(tmp_path / "map.json")
    opened = EfficiencyMap.open(tmp_path / "map.json")
    assert opened.averages == one.map.averages
    view, shown = _view(one), cells(write_map_report(one, tmp_path / "report"))
    lines = opened.text().splitlines()[1:]
    for cut, printed, row in zip(opened.cuts, lines, shown, strict=False):
        own = opened.averages[cut]
        assert view.averages[cut] == pytest.approx(own, rel=1e-9)
        text = printed.removeprefix(cut).replace("+-", "±")
        numbers = re.findall(r"[\d.]+ ± [\d.]+|[\d.]+ %", text)
        assert [f"({numbers[2]}) %", f"({numbers[0]}) %", numbers[1]] == row[1:4]
        # The parts that pass and fail are those of one sum.
        assert own["passing"] / (own["passing"] + own["failing"]) == pytest.approx(
            own["real"]
        )
        parts = [value for name, value in own.items() if name.startswith("error_")]
        assert own["corrected_error"] == pytest.approx(np.hypot.reduce(parts))
        assert {"error_scale_P", "error_binning"} <= set(own)
    # `pidgan plot` shows the uncertainty of the same average.
    whole = average(opened, map_sizes(opened))
    number = opened.cut_index("DLLk > 2")
    assert whole.error[number] == own["corrected_error"]
    record = closure_table(
        KAON, one.reference, cuts="DLLk > 2", where=where, binning={}
    )
    assert own["real"] == pytest.approx(float(record.real.efficiency[0]))
    assert own["real_error"] == pytest.approx(float(record.real.error[0]))
    shown_value = f"{100 * own['corrected']:.2f} %"
    assert shown_value in opened._facts().rows["mean DLLk > 2"]


@pytest.mark.parametrize("where", [None, "ETA > 3"])
def test_an_efficiency_on_the_reference_rows_is_that_of_the_map(
    where: str | None,
) -> None:
    one = given(KAON, cuts=["DLLk > 1"], where=where, scales={"P": 1.05})
    own = one.map.averages["DLLk > 1"]
    frame = one.reference if where is None else one.reference.query(where)
    columns = {name: frame[name].to_numpy() for name in one.map.binning}
    # Whatever was generated, the correction is that of the map.
    passed = np.arange(len(frame)) % 4 > 0
    (found,) = combine_rows(
        one.map,
        [0],
        place=bin_index(columns, one.map.binning),
        passed=passed[np.newaxis],
        weights=frame["weight"].to_numpy(),
    )
    assert found.correction == pytest.approx(own["corrected"] - own["generated"])
    assert found.syst["calibration"] == pytest.approx(own["error_calibration"])
    assert found.syst["scale_P"] == pytest.approx(own["error_scale_P"])


def test_a_report_finds_the_bundle_of_a_map(tmp_path: Path) -> None:
    page = write_map_report("demo-kaon", tmp_path / "report")
    assert "Efficiency of K+, RichDLLk &gt; 0" in page.read_text()
    found = EfficiencyMap.open("demo-kaon")
    path, *_ = found.save(tmp_path / "map.json")
    with pytest.raises(MapError, match="is not beside it; give MapInput"):
        write_map_report(path, tmp_path / "other")
    bundle = shipped_path("demo-kaon", ".onnx")
    shutil.copy(bundle, tmp_path / "kaon.onnx")
    reference = bundle.with_name("demo-kaon.reference.parquet")
    shutil.copy(reference, tmp_path / "kaon.reference.parquet")
    assert write_map_report(path, tmp_path / "other").is_file()
