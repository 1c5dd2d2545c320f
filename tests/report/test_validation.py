"""Validation of a generator that is known exactly, and the report it is written to."""

import dataclasses
import json
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from toy_generator import ToyGenerator, make_card, make_sample

from pidgan.bundle.card import CardVariable
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.errors import CutError, DatasetError, PidganError, PidganWarning
from pidgan.report import validation
from pidgan.report.drawing import plot
from pidgan.report.page import Picture, Section, Table
from pidgan.report.report import Report
from pidgan.report.track_cuts import quantile_edges
from pidgan.report.validation import validate
from pidgan.sample.dataset import PARTS, Dataset
from pidgan.sample.loading import load_binning


def toy_dataset(n: int, *, seed: int = 1, signed: bool = True) -> Dataset:
    """Rows of the toy generator; if signed, with background that weights subtract."""
    rng = np.random.default_rng(seed)
    p = np.exp(rng.uniform(np.log(3100), np.log(99_000), n))
    conditions = np.stack([p, rng.uniform(1.6, 4.9, n)], axis=1).astype(np.float32)
    generator = ToyGenerator(card=make_card())
    targets = generator.generate(conditions, rng.normal(size=(n, 3)))
    weights = np.ones(n)
    if signed:
        background = rng.random(n) < 0.2
        targets[background] -= np.float32(3)
        weights[background & (rng.random(n) < 0.5)] = -1.0
    split = rng.choice(3, n, p=[0.6, 0.1, 0.3]).astype(np.uint8)
    return Dataset(
        sample=make_sample(cuts=["DLLk > 3", "DLLk > 5"]),
        conditions=conditions,
        targets=targets,
        weights=weights,
        alternatives=np.empty((n, 0)),
        split=split,
        info={},
    )


def test_rows_of_a_large_dataset_are_a_random_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator, dataset = ToyGenerator(card=make_card()), toy_dataset(6000)
    own = int((dataset.split == PARTS.index("test")).sum())
    most = {"max_rows": 500}
    prepare = partial(validation._prepare_rows, generator, dataset, where=None, **most)
    first = prepare(seed=1).real.conditions
    np.testing.assert_array_equal(first, dataset.part("test").conditions[:500])
    monkeypatch.setattr(validation, "HELD_ROWS", 1000)
    some, again, other = (prepare(seed=seed).real for seed in (1, 1, 2))
    assert len(some.weights) == 500
    np.testing.assert_array_equal(some.conditions, again.conditions)
    assert not np.array_equal(some.conditions, other.conditions)
    mine = {tuple(row) for row in dataset.part("test").conditions.tolist()}
    chosen = {tuple(row) for row in some.conditions.tolist()}
    assert len(chosen) == 500
    assert chosen <= mine
    later = dataset.part("test").conditions[own // 2 :].tolist()
    assert len(chosen & {tuple(row) for row in later}) > 150  # from everywhere
    assert validation._random_of(dataset) == {"random_of": own}


@pytest.fixture(scope="module")
def report() -> Report:
    dataset = toy_dataset(6000)
    other = toy_dataset(2000, seed=2, signed=False)
    generator = ToyGenerator(card=make_card())
    return validate(generator, dataset, misid=[(generator, other)])


def pictures_of(sections: Iterable[Section]) -> Iterator[Picture]:
    """Yield all pictures of a page."""
    for section in sections:
        yield from section.pictures
        yield from pictures_of(section.parts)


def test_figures_are_found_by_the_name_of_a_target(report: Report) -> None:
    figure = report.figures["DLLk"]
    assert isinstance(figure, Figure)
    assert report.figures["DLLk"] is figure
    assert report.plot() is report.figures
    assert list(plot(report)) == list(report.figures)
    for name in ("DLLk in bins of P and ETA", "efficiency of K+, DLLk > 3, P"):
        assert name in report.figures
    assert {"plane DLLk > 3", "correlation of DLLk, DLLp"} <= set(report.figures)
    with pytest.raises(KeyError, match="no picture 'DLLK'; closest: 'DLLk'"):
        report.figures["DLLK"]
    with pytest.raises(KeyError, match=r"`report\.numbers` has what was measured"):
        report.figures["targets"]


def test_every_picture_of_the_page_has_a_name_of_its_own(report: Report) -> None:
    shown = pictures_of(report.draw(report.numbers, report.data))
    assert [picture.name for picture in shown] == list(report.figures)


def test_exact_generator_is_at_the_floor(report: Report) -> None:
    for found in report.numbers["targets"].values():
        assert found["ks"]["value"] < found["ks"]["floor"] + 3 * found["ks"]["error"]
        mean = found["in_bins"]["ks_mean"]
        assert mean["value"] < 1.3 * mean["floor"]
    c2st = report.numbers["c2st"]
    assert abs(c2st["value"] - 0.5) < 4 * c2st["error"]
    for found in report.numbers["efficiency"].values():
        difference = found["overall"]["difference"]
        assert abs(difference["value"]) < 4 * difference["error"]
        assert 0.5 < found["pull_rms"]["value"] < 1.6


def test_shifted_generator_is_found() -> None:
    generator = ToyGenerator(card=make_card(), offset=1.5)
    report = validate(generator, toy_dataset(6000))
    head = report.headline()
    assert head["ks"]["DLLk"]["value"] > 5 * head["ks"]["DLLk"]["floor"]
    assert report.numbers["targets"]["DLLk"]["wasserstein"]["value"] == pytest.approx(
        1.5, abs=0.2
    )
    assert head["c2st"]["value"] > 0.7
    assert head["pull_rms"]["DLLk > 5"]["value"] > 3


def test_every_headline_figure_has_error_floor_and_size(report: Report) -> None:
    for label, figure in report.main:
        for key in ("value", "error", "floor", "n_eff"):
            assert isinstance(figure[key], float), (label, key)


def test_figures_are_json_and_repeat_with_the_seed(report: Report) -> None:
    assert json.loads(report.to_json()) == report.numbers
    dataset = toy_dataset(700)
    generator = ToyGenerator(card=make_card())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PidganWarning)
        first, second = (
            validate(generator, dataset, seed=3, c2st_rows=300) for _ in range(2)
        )
        other = validate(generator, dataset, seed=4, c2st_rows=300)
    assert first.to_json() == second.to_json()
    assert first.numbers["targets"] != other.numbers["targets"]


def test_summary_is_a_table(report: Report) -> None:
    lines = report.summary().splitlines()
    assert lines[0].startswith("Validation of toy: K+; ")
    assert any(line.startswith("weighted KS, DLLk") for line in lines)
    assert all(len(line) < 120 for line in lines[1:])


def test_one_cut_and_any_binning_can_be_given() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PidganWarning)
        report = validate(
            ToyGenerator(card=make_card()),
            toy_dataset(1500),
            cuts="DLLk > 3",
            binning={"P": 4, "ETA": "muons"},
            c2st_rows=200,
        )
    assert list(report.numbers["efficiency"]) == ["DLLk > 3"]
    momentum, eta = report.data.cuts.against
    assert momentum.real.shape == (4,)
    assert eta.binning == {"ETA": load_binning("muons")["ETA"]}


def test_misid_is_that_of_the_other_species(report: Report) -> None:
    assert set(report.numbers["misid"]) == {"K+"}
    found = report.numbers["misid"]["K+"]["DLLk > 3"]["overall"]
    assert 0 < found["real"] < 1
    (other,) = report.data.misid.values()
    assert {item.cuts for item in other.against} == {("DLLk > 3", "DLLk > 5")}


def test_atoms_and_ties_are_counted() -> None:
    dataset = toy_dataset(3000, signed=False)
    dataset.targets[::10, 0] = -999.0
    dataset.targets[1::4, 1] = dataset.targets[1::4, 0]
    found = validate(ToyGenerator(card=make_card()), dataset, c2st_rows=200).numbers
    (atom,) = [a for a in found["targets"]["DLLk"]["atoms"] if a["value"] == -999.0]
    assert atom["sentinel"]
    assert atom["real"] == pytest.approx(0.1, abs=0.03)
    assert atom["generated"] == 0
    assert found["ties"]["DLLk == DLLp"]["real"] == pytest.approx(0.2, abs=0.06)


def test_tiny_dataset_warns_and_works() -> None:
    generator = ToyGenerator(card=make_card())
    with pytest.warns(PidganWarning, match="no C2ST"):
        report = validate(generator, toy_dataset(300))
    assert report.numbers["c2st"]["value"] is None
    assert "C2ST needs 200" in report.numbers["c2st"]["reason"]
    assert "C2ST needs 200" in report.summary()


def test_one_condition_one_target_no_cuts() -> None:
    rng = np.random.default_rng(1)
    sample = make_sample(
        conditions=[{"name": "nTracks", "range": [0, 500], "integer": True}],
        targets=[{"name": "ProbNNk", "range": [0, 1]}],
        binning={},
        cuts=[],
    )
    card = make_card(
        conditions=(CardVariable(name="nTracks", unit="1", range=(0, 500)),),
        targets=(CardVariable(name="ProbNNk", unit="1", range=(0, 1)),),
        sample=sample,
    )

    class Uniform:
        def __init__(self) -> None:
            self.card = card

        def generate(self, conditions: np.ndarray, noise: np.ndarray) -> np.ndarray:
            from scipy.special import ndtr

            return ndtr(noise[:, :1]).astype(np.float32)

    dataset = Dataset(
        sample=sample,
        conditions=rng.integers(0, 4, (2000, 1)).astype(np.float32),
        targets=rng.random((2000, 1)).astype(np.float32),
        weights=np.ones(2000),
        alternatives=np.empty((2000, 0)),
        split=np.repeat([0, 2], 1000).astype(np.uint8),
        info={},
    )
    report = validate(Uniform(), dataset, c2st_rows=200)
    (cut,) = report.numbers["efficiency"]
    assert cut.startswith("ProbNNk > 0.")
    assert report.numbers["efficiency"][cut]["overall"]["real"] == pytest.approx(
        0.5, abs=0.02
    )


def test_wrong_pairs_are_refused() -> None:
    sample = make_sample(targets=[{"name": "PIDK", "range": [-9, 9]}], cuts=[])
    card = make_card(
        targets=(CardVariable(name="PIDK", unit="1", range=(-9, 9)),), sample=sample
    )
    dataset = toy_dataset(100)
    with pytest.raises(DatasetError, match="target_names are PIDK; those of dataset"):
        validate(ToyGenerator(card=card), dataset)
    generator = ToyGenerator(card=make_card())
    dataset.split[:] = 0
    with pytest.raises(DatasetError, match="test part of dataset 'toy' has 0 rows"):
        validate(generator, dataset)


def test_unknown_cut_is_refused() -> None:
    generator = ToyGenerator(card=make_card())
    with pytest.raises(CutError, match="DLLk"):
        validate(generator, toy_dataset(500, signed=False), cuts=["DLLK2 > 0"])


def test_one_cut_is_a_list_of_one() -> None:
    generator, dataset = ToyGenerator(card=make_card()), toy_dataset(1500)
    one = validate(generator, dataset, cuts="DLLk > 3", c2st_rows=200)
    same = validate(generator, dataset, cuts=["DLLk > 3"], c2st_rows=200)
    assert list(one.numbers["efficiency"]) == ["DLLk > 3"]
    assert one.to_json() == same.to_json()


def test_tracks_are_judged_on_the_test_part() -> None:
    generator = ToyGenerator(card=make_card())
    with pytest.raises(DatasetError, match="'excluded' is for showers"):
        validate(generator, toy_dataset(100), part="excluded")


def test_rows_that_are_not_finite_are_left_out() -> None:
    class Broken:
        card = make_card()

        def generate(self, conditions: np.ndarray, noise: np.ndarray) -> np.ndarray:
            targets = ToyGenerator(card=self.card).generate(conditions, noise)
            targets[:3] = np.nan
            return targets

    with pytest.warns(PidganWarning, match="3 of .* generated rows are not finite"):
        report = validate(Broken(), toy_dataset(1500, signed=False), c2st_rows=200)
    assert np.isfinite(report.data.rows.generated.targets).all()


def test_pulls_of_pairs_are_standard_normal() -> None:
    # Whatever the weights, and although both samples share them.
    rng = np.random.default_rng(1)
    pulls = []
    for _ in range(40):
        weights = rng.choice([1.2, -0.6], 4000, p=[0.8, 0.2])
        real, generated = rng.random((2, 1, 4000)) < 0.9
        rows = ComparedRows(
            species="K+",
            cuts=("y > 0",),
            columns={"bin": np.repeat(np.arange(10), 400)},
            weights=weights,
            real=real,
            generated=generated.astype(np.int64),
            repeats=1,
        )
        found = rows.in_bins({"bin": tuple(range(11))})
        pulls.append(found.pull)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.12)


def test_report_is_one_page_beside_its_json(report: Report, tmp_path: Path) -> None:
    fit = {
        "edges": [0.0, 1.0, 2.0],
        "counts": [5, 6],
        "signal": [4.0, 4.0],
        "background": [1.0, 2.0],
        "yields": {"signal": [8.0, 3.0]},
        "chi2": 0.1,
        "n_dof": 1,
        "p_value": 0.7,
    }
    extra = Section(title="More <here>", tables=[Table(rows=[{"a": "1 & 2"}])])
    history = {"step": [1, 2], "loss": [1.0, 0.5]}
    data = dataclasses.replace(report.data, history=history, mass_fit=fit)
    report = dataclasses.replace(report, data=data)
    page = report.save(tmp_path / "out", extra_sections=[extra])
    text = page.read_text()
    assert sorted(p.name for p in page.parent.iterdir()) == [
        "report.html",
        "report.json",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert json.loads((page.parent / "report.json").read_text()) == report.numbers
    assert "More &lt;here&gt;" in text
    assert "1 &amp; 2" in text
    assert 'src="http' not in text
    assert 'href="http' not in text
    titles = ("Summary", "Mass fit", "Training", "DLLk", "DLLk &gt; 3")
    for title in titles:
        assert f">{title}</a>" in text
    with pytest.raises(PidganError, match="out exists"):
        report.save(tmp_path / "out")


def test_a_charge_has_a_bin_for_each_value() -> None:
    charge = np.repeat(np.array([-1.0, 1.0], np.float32), [70, 30])
    assert quantile_edges(charge, 3) == (-2.0, 0.0, 2.0)
    assert len(quantile_edges(np.linspace(0, 1, 99), 3)) == 4
