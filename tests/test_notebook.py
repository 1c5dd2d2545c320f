"""Objects show themselves as one short line, and as a small card in a notebook."""

import dataclasses
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_map import combine_rows, draw_rows, make_map

import pidgan
from pidgan.bundle.collection import Collection
from pidgan.efficiency.estimates import Estimates
from pidgan.efficiency.quoted import percent_text
from pidgan.notebook import LONGEST, MOST_ROWS, Facts, card, line
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Discriminant
from pidgan.sample.sweights import compute_sweights

VOID = {"br", "hr"}


class Strict(HTMLParser):
    """Refuses tags that stay open, and tags and attributes that load or run things."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("div", "table", "tr", "td", "b"), tag
        assert {name for name, _ in attrs} <= {"style"}, attrs
        assert not [value for _, value in attrs if value and "url" in value]
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> str:
    """Return the text of a card, which must be sound."""
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert not parser.open
    return parser.text


@pytest.fixture(scope="module")
def things(kaon_dataset: Dataset) -> dict[str, Any]:
    sample = kaon_dataset.sample
    frame = kaon_dataset.frame("test")
    table = pidgan.efficiency_table(
        frame, ["RichDLLk > 0"], binning={"P": 4}, weights=frame["weight"]
    )
    rng = np.random.default_rng(1)
    mass = np.r_[rng.normal(1865, 7, 3000), rng.uniform(1815, 1915, 2000)]
    mass = mass[(mass > 1815) & (mass < 1915)]
    shape = Discriminant(branch="D0_M", range=(1815, 1915), signal="gauss")
    return {
        "Sample": sample,
        "Dataset": kaon_dataset,
        "Part": kaon_dataset.part("train"),
        "EfficiencyTable": table,
        "EfficiencyMap": make_map(),
        "SweightResult": compute_sweights(mass, shape),
        "Estimates": Estimates(labels=("a", "b"), values=np.array([0.5, 0.25])),
    }


NAMES = [
    *("Sample", "Dataset", "Part", "EfficiencyTable", "EfficiencyMap"),
    *("SweightResult", "Estimates"),
]


@pytest.mark.parametrize("name", NAMES)
def test_short_line_and_card(things: dict[str, Any], name: str) -> None:
    _is_shown(things[name], name)


def _is_shown(found: Any, name: str) -> None:
    for text in (repr(found), str(found)):
        assert text.startswith(f"<{name}: ")
        assert len(text) <= LONGEST
        assert "\n" not in text
    html = found._repr_html_()
    assert len(html) < 12_000
    assert name in read(html)


def test_trained_things(
    kaon_model: Any, kaon_bundle: Path, kaon_dataset: Dataset, tmp_path: Path
) -> None:
    from pidgan.bundle.collecting import collect

    bundle = pidgan.open_bundle(kaon_bundle)
    _is_shown(kaon_model, "Model")
    _is_shown(bundle, "Bundle")
    _is_shown(bundle.card, "Card")
    assert "kaon.onnx" in repr(bundle)
    assert "K+" in repr(bundle)
    _is_shown(collect([kaon_bundle], tmp_path / "all.toml"), "Collection")
    assert isinstance(Collection.open(tmp_path / "all.toml"), Collection)
    report = pidgan.validate(kaon_model, kaon_dataset, c2st_rows=500)
    _is_shown(report, "Report")
    assert "floor" in read(report._repr_html_())


def test_hostile_names_are_escaped(things: dict[str, Any]) -> None:
    evil = "<script>alert('x')</script>\x1b[2J & \"quoted\"\nsecond line"
    sample = things["Sample"].model_copy(update={"name": evil, "title": evil})
    data = dataclasses.replace(things["Dataset"], sample=sample)
    for found in (sample, data):
        assert "\x1b" not in repr(found)
        assert "\n" not in repr(found)
        text = read(found._repr_html_())
        assert "<script>alert('x')</script>" in text  # as text, not as a tag


def test_efficiencies_say_what_they_are() -> None:
    track = draw_rows(1, 500).tracks["a"]
    passed = np.array(list(track.passed.values()))
    found = combine_rows(
        make_map(), (0, 1), place=track.place, passed=passed, weights=np.ones(500)
    )
    _is_shown(found, "PidEfficiencies")
    _is_shown(found[0], "PidEfficiency")
    _is_shown(found.estimates[0], "Estimates")
    text = read(found._repr_html_())
    for one in found:
        assert one.label in text
        assert percent_text(one) in text


def test_much_is_abridged() -> None:
    facts = Facts("x" * 1000, {f"row {i}": "y" * 1000 for i in range(100)})
    assert len(line("Thing", facts)) == LONGEST
    assert f"and {100 - MOST_ROWS} more" in read(card("Thing", facts))


def test_facts_are_those_of_the_object(things: dict[str, Any]) -> None:
    data, table = things["Dataset"], things["EfficiencyTable"]
    assert f"{len(data):,} rows" in repr(data)
    assert data.sample.species in repr(data)
    share = table.sum_passed.sum() / table.sum_weights.sum()
    assert f"{100 * share:.2f} %" in read(table._repr_html_())
