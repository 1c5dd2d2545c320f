"""Messages about rows in memory: what to write in Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pidgan
from pidgan.errors import CutError, MapError, NtupleError, PidganError
from pidgan.files.wording import python_words, words_of_rows


def frame(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    columns = {"K_P": rng.uniform(5e3, 9e4, n), "K_ETA": rng.uniform(2, 4.5, n)}
    return pd.DataFrame({**columns, "nTracks": rng.integers(50, 400, n)})


@pytest.fixture(scope="module")
def applied() -> pd.DataFrame:
    return pidgan.apply({"K": "demo-kaon"}, frame(), progress=False)


def quote(rows: Any, **given: Any) -> Any:
    settings: dict[str, Any] = {"cuts": "RichDLLk > 0", "progress": False, **given}
    return pidgan.pid_efficiency({"K": "demo-kaon"}, rows, **settings)


CASES: dict[str, tuple[Callable[[pd.DataFrame], Any], type[Exception], str]] = {
    "twice": (
        lambda rows: pidgan.apply({"K": "demo-kaon"}, rows),
        NtupleError,
        "already; use mode='replace', mode='friend' or suffix$",
    ),
    "half": (
        lambda rows: quote(rows[::2]),
        MapError,
        "or go on with trust=True, which",
    ),
    "branch": (
        lambda rows: quote(rows, where="isMuon == 1"),
        NtupleError,
        "where needs 'K_isMuon' or 'isMuon' of K, and there is no such column",
    ),
    "target": (
        lambda rows: quote(rows, where="RichDLLp > 0"),
        MapError,
        "run systematics with where='RichDLLp > 0'",
    ),
    "table": (
        lambda rows: pidgan.efficiency_table(rows, "K_P > 5000", where="{track}_P > 0"),
        CutError,
        r"\{track\} is the prefix of a track .* name the variable alone, 'P > 0'",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_messages_about_rows_have_no_options(name: str, applied: pd.DataFrame) -> None:
    act, kind, match = CASES[name]
    with pytest.raises(kind, match=match) as found:
        act(applied)
    assert "--" not in str(found.value)


def test_messages_about_files_have_the_options(
    applied: pd.DataFrame, tmp_path: Path
) -> None:
    from pidgan.files.tables import write_trees

    path = tmp_path / "a.root"
    write_trees(path, {"T": {n: applied[n].to_numpy() for n in applied}})
    with pytest.raises(MapError, match=r"or go on with --trust \(trust=True\)"):
        quote(path)


def test_options_become_arguments() -> None:
    assert python_words("give --species-from TRUEID") == "give species_from='TRUEID'"
    assert python_words("(--branch, --unit)") == "(branches, units)"
    assert python_words("a - b, x -- y") == "a - b, x -- y"


def test_a_failure_of_another_kind_stays() -> None:
    @words_of_rows("files")
    def fail(files: Any) -> None:
        raise error

    for error in (PidganError("see --key"), ValueError("see --key")):
        with pytest.raises(type(error), match="see "):
            fail(frame())


def test_a_table_of_another_library_is_told_how_to_become_one() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"K_P": [1.0]})
    bundle = pidgan.open_bundle("demo-kaon")
    with pytest.raises(TypeError, match=r"; give frame.to_pandas\(\)$"):
        bundle.sample(table, track="K")
    with pytest.raises(TypeError, match=r"; give files.to_pandas\(\)$"):
        pidgan.apply({"K": bundle}, table)


def test_the_prefix_of_a_track_is_told_where_there_is_none() -> None:
    with pytest.raises(CutError, match="closest: 'RichDLLk', without the prefix"):
        pidgan.run_systematics("demo-kaon", cuts="Kplus_RichDLLk > 0")
    with pytest.raises(CutError, match="name the variable alone, 'P > 5000'"):
        pidgan.run_systematics("demo-kaon", where="{track}_P > 5000")


def test_other_conditions_leave_the_binning_of_the_parent(tmp_path: Path) -> None:
    head = 'extends = "sim_dstar_k"\n'
    conditions = (
        '[[conditions]]\nname = "PT"\nbranch = "probe_PT"\nunit = "MeV"\n'
        'range = [250, 40000]\n[[conditions]]\nname = "ETA"\nbranch = "probe_ETA"\n'
        "range = [2.0, 4.5]\n"
    )
    path = tmp_path / "own.toml"
    path.write_text(head + conditions)
    found = pidgan.load_sample(path)
    assert (found.binning, found.map_binning) == ({}, {})
    path.write_text(f"{head}binning = {{ETA = [2.0, 3.0, 4.5]}}\n{conditions}")
    assert pidgan.load_sample(path).binning == {"ETA": (2.0, 3.0, 4.5)}
    path.write_text(head)
    assert pidgan.load_sample(path).binning == pidgan.load_sample("sim_dstar_k").binning
