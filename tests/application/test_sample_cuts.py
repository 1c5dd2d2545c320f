"""Cuts that a calibration sample had, and analysis ntuples without them."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_generator import ToyGenerator, make_card, make_sample

from pidgan.application.apply import apply
from pidgan.application.conditions import Conditions
from pidgan.application.summary import ApplySummary
from pidgan.errors import PidganWarning
from pidgan.files.tables import read_columns, write_trees
from pidgan.files.trees import Source

N = 200
TRIGGERS = " | ".join(f"mu_Hlt1Line{k}Decision_TIS == 1" for k in range(23))
BRIEF = "mu_Hlt1Line0Decision_TIS == 1 or 22 more"
CONDITIONS = [
    {"name": "P", "branch": "mu_P", "unit": "MeV", "range": (3e3, 1e5)},
    {"name": "ETA", "branch": "mu_ETA", "range": (1.5, 5.0)},
]


def generator(selection: str | None, **dataset: Any) -> ToyGenerator:
    sample = make_sample(selection=selection, conditions=CONDITIONS)
    return ToyGenerator(card=make_card(sample=sample, dataset=dataset))


def branches(**more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    own = {"T_P": rng.uniform(5e3, 9e4, N), "T_ETA": rng.uniform(2, 4, N)}
    return own | {name: np.asarray(values) for name, values in more.items()}


def applied(
    folder: Path, given: Any, columns: dict[str, Any], **more: Any
) -> tuple[ApplySummary, list[str]]:
    write_trees(folder / "a.root", {"DecayTree": columns}, overwrite=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PidganWarning)
        summary = apply({"T": given}, folder / "a.root", folder / "b.root", **more)
    return summary, [str(one.message) for one in caught]


def test_rows_that_fail_are_counted_and_warned_of(tmp_path: Path) -> None:
    bundle = generator("mu_INMUON == 1 & tag_X > 3 & Jpsi_M > 3000")
    columns = branches(T_INMUON=(np.arange(N) % 4 > 0).astype(np.int8))
    summary, (text,) = applied(tmp_path, bundle, columns)
    assert summary.sample_cuts == {"T": {"mu_INMUON == 1": (50, N)}}
    assert "mu_INMUON == 1 (fails in 50 of 200 rows, 25.0 %)" in text
    assert "tag_X" not in text
    assert "fails in 50 of 200" in summary.text()
    assert json.loads(summary.to_json())["sample_cuts"]["T"]["mu_INMUON == 1"] == [
        50,
        N,
    ]


def test_cuts_that_all_rows_pass_are_silent(tmp_path: Path) -> None:
    columns = branches(T_INMUON=np.ones(N, bool))
    summary, texts = applied(tmp_path, generator("mu_INMUON == 1"), columns)
    assert summary.sample_cuts == {"T": {"mu_INMUON == 1": (0, N)}}
    assert not texts


def test_cuts_without_a_branch_are_said_in_one_line(tmp_path: Path) -> None:
    bundle = generator(f"mu_INMUON == 1 & ({TRIGGERS})")
    columns = branches(INMUON=np.ones(N), T_Hlt1Line0Decision_TIS=np.ones(N))
    summary, (text,) = applied(tmp_path, bundle, columns)
    none = {"mu_INMUON == 1": (0, 0), BRIEF: (0, 0)}
    assert summary.sample_cuts == {"T": none}
    assert f"{BRIEF} (no such branch)" in text
    assert "\n" not in text
    assert len(text) < 300


@pytest.mark.parametrize("unit", ["MeV", "GeV"])
def test_cuts_on_conditions_know_their_units(tmp_path: Path, unit: Any) -> None:
    columns = branches()
    expected = int(np.count_nonzero(columns["T_P"] <= 2e4))
    columns["T_P"] = columns["T_P"] / {"MeV": 1, "GeV": 1e3}[unit]
    conditions = Conditions(units={"P": unit})
    given = generator("mu_P > 20000 & mu_ETA > 1")
    summary, _ = applied(tmp_path, given, columns, conditions=conditions)
    found = {"mu_P > 20000": (expected, N), "mu_ETA > 1": (0, N)}
    assert summary.sample_cuts == {"T": found}


def test_one_charge_of_the_sample(tmp_path: Path) -> None:
    """A condition that was left out as it had one value, found by the PDG id."""
    given = generator(None, left_out={"CHARGE": 1.0, "HASBREM": None})
    ids = np.where(np.arange(N) < 30, 13, -13).astype(np.int32)
    summary, (text,) = applied(tmp_path, given, branches(T_ID=ids))
    assert summary.sample_cuts == {"T": {"mu_CHARGE == 1": (30, N)}}
    assert "mu_CHARGE == 1 (fails in 30 of 200 rows, 15.0 %)" in text
    chosen = generator("mu_CHARGE > 0", left_out={"CHARGE": 1.0})
    summary, _ = applied(
        tmp_path, chosen, branches(T_CHARGE=-np.sign(ids)), overwrite=True
    )
    assert summary.sample_cuts == {"T": {"mu_CHARGE > 0": (30, N)}}


def test_only_rows_of_the_selection_are_judged(tmp_path: Path) -> None:
    columns = branches(T_INMUON=(np.arange(N) % 4 > 0).astype(np.int8))
    summary, texts = applied(
        tmp_path, generator("mu_INMUON == 1"), columns, where="T_INMUON == 1"
    )
    assert summary.sample_cuts == {"T": {"mu_INMUON == 1": (0, 150)}}
    assert not texts


def test_nothing_depends_on_chunks_and_targets_stay(tmp_path: Path) -> None:
    columns = branches(T_INMUON=(np.arange(N) % 4 > 0).astype(np.int8))
    names = ["T_DLLk", "T_pidgan_status"]
    results = []
    for number, (selection, chunk) in enumerate(
        ((None, None), ("mu_INMUON == 1", None), ("mu_INMUON == 1", 7))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        summary, _ = applied(folder, generator(selection), columns, chunk=chunk)
        source = Source(str(folder / "b.root"), "DecayTree")
        results.append((summary.sample_cuts, read_columns(source, names)))
    assert results[0][0] == {}
    assert results[1][0] == results[2][0] == {"T": {"mu_INMUON == 1": (50, N)}}
    for _, frame in results[1:]:
        np.testing.assert_array_equal(frame.to_numpy(), results[0][1].to_numpy())


def test_a_second_run_knows_what_the_first_one_found(tmp_path: Path) -> None:
    columns = branches(T_INMUON=(np.arange(N) % 4 > 0).astype(np.int8))
    given = generator("mu_INMUON == 1 & mu_GHOST < 1")
    first, texts = applied(tmp_path, given, columns)
    again = tmp_path / "a.root"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PidganWarning)
        second = apply({"T": given}, again, tmp_path / "b.root")
    assert second.skipped
    assert second.sample_cuts == first.sample_cuts
    assert [str(one.message) for one in caught] == texts


def test_collections_of_tracks(tmp_path: Path) -> None:
    columns = branches(T_INMUON=np.arange(N) % 4 > 0, EventPT=np.ones(N))
    nested = {name: values.reshape(-1, 2) for name, values in columns.items()}
    nested["T_GHOST"] = np.zeros((N // 2, 3))  # of another shape than the tracks
    given = generator("mu_INMUON == 1 & mu_GHOST < 1")
    summary, _ = applied(tmp_path, given, nested)
    assert summary.sample_cuts == {
        "T": {"mu_INMUON == 1": (50, N), "mu_GHOST < 1": (0, 0)}
    }


def test_files_without_the_branch_are_named(tmp_path: Path) -> None:
    bundle = generator("mu_INMUON == 1")
    with_branch = branches(T_INMUON=np.arange(N) % 4 > 0)
    for name, columns in (("a", with_branch), ("b", branches()), ("c", branches())):
        write_trees(tmp_path / f"{name}.root", {"DecayTree": columns})
    files = [tmp_path / f"{name}.root" for name in "abc"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PidganWarning)
        summary = apply({"T": bundle}, files, tmp_path / "out")
    assert summary.sample_cuts == {"T": {"mu_INMUON == 1": (50, N)}}
    texts = [str(one.message) for one in caught]
    (text,) = (text for text in texts if "looked for in" in text)
    assert "mu_INMUON == 1 of the calibration sample was looked for in 1 of 3" in text
    assert "b.root and 1 more have no such branch" in text


@pytest.mark.parametrize("unit", ["MeV", "GeV"])
def test_momenta_are_compared_in_the_unit_of_the_ntuple(
    tmp_path: Path, unit: str
) -> None:
    bundle = generator("mu_PE > 30000")
    factor = 1000.0 if unit == "GeV" else 1.0
    columns = branches()
    columns["T_PE"] = np.linspace(1, 6e4, N) / factor
    columns["T_P"] = columns["T_P"] / factor
    summary, _ = applied(
        tmp_path, bundle, columns, conditions=Conditions(units={"P": unit})
    )
    assert summary.sample_cuts == {"T": {"mu_PE > 30000": (N // 2, N)}}
