"""Datasets and sWeights of rows in memory are those of the same rows in files."""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd
import pytest

from pidgan.errors import DatasetError, NtupleError, SampleError
from pidgan.files.tables import find_sources, read_columns, write_table
from pidgan.progress import Bar
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Discriminant
from pidgan.sample.loading import load_sample
from pidgan.sample.rows import read_rows
from pidgan.sample.sweights import compute_sweights


@pytest.fixture(scope="module")
def whole(calibration_file: Path) -> pd.DataFrame:
    """All rows of the trees of a file, one after the other."""
    sample = load_sample("sim_dstar_k")
    trees = find_sources(calibration_file, trees=sample.trees)
    frames = [read_columns(source, list(sample.branches)) for source in trees]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def rows(whole: pd.DataFrame) -> pd.DataFrame:
    return whole[:12_000]


def test_a_dataset_is_that_of_a_file(
    whole: pd.DataFrame, kaon_dataset: Dataset
) -> None:
    found = build_dataset("sim_dstar_k", whole[whole.columns[::-1]], seed=1)
    assert found.info["hash"] == kaon_dataset.info["hash"]
    assert found.info["files"] == [{"source": "the DataFrame", "rows": len(whole)}]


def test_what_holds_the_rows_makes_no_difference(rows: pd.DataFrame) -> None:
    sample = load_sample("sim_dstar_k")
    silent = Bar("prepare", show=False)
    expected = read_rows(sample, rows, bar=silent).arrays
    columns = {name: values.to_numpy() for name, values in rows.items()}
    kinds: list[Any] = [columns, rows.to_records(index=False), ak.zip(columns)]
    kinds += [rows.convert_dtypes(), [rows[:5000], rows[5000:]]]
    for kind in kinds:
        found = read_rows(sample, kind, bar=silent).arrays
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


def test_rows_that_do_not_fit_are_refused(rows: pd.DataFrame) -> None:
    (first, *_) = rows.columns
    with pytest.raises(NtupleError, match=f"the DataFrame has no column '{first}'"):
        build_dataset("sim_dstar_k", rows.drop(columns=first))
    with pytest.raises(NtupleError, match=f"column '{first}' is of type object"):
        build_dataset("sim_dstar_k", rows.astype({first: object}))
    with pytest.raises(NtupleError, match="the DataFrame is empty: got 0 entries"):
        build_dataset("sim_dstar_k", rows[:0])
    with pytest.raises(NtupleError, match="no input file given"):
        build_dataset("sim_dstar_k", [])
    momentum = load_sample("sim_dstar_k").conditions[0].inputs[0]
    with pytest.raises((SampleError, DatasetError), match="looks like GeV"):
        build_dataset("sim_dstar_k", rows.assign(**{momentum: rows[momentum] / 1000}))


def test_sweights_in_files_need_files(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    text = "[sweights]\nfile = '{stem}_sw.root'\nbranch = 'sw'\nmatch = 'entry'\n"
    path.write_text(f"extends = 'sim_dstar_k'\n{text}")
    sample = load_sample(path)
    with pytest.raises(SampleError, match="rows in memory have none; give the files"):
        build_dataset(sample, pd.DataFrame({"P": [1.0]}))


def test_sweights_of_a_frame_or_a_file(whole: pd.DataFrame, tmp_path: Path) -> None:
    sample = load_sample("sim_dstar_k")
    shape = sample.discriminant
    assert isinstance(shape, Discriminant)
    low, high = shape.range
    inside = whole[whole[shape.branch].between(low, high)]
    expected = compute_sweights(inside[shape.branch].to_numpy(), shape).weights
    for rows in (inside, {shape.branch: inside[shape.branch].to_numpy()}):
        np.testing.assert_array_equal(compute_sweights(rows, shape).weights, expected)
    write_table(tmp_path / "rows.parquet", inside)
    of_file = compute_sweights(tmp_path / "rows.parquet", shape).weights
    np.testing.assert_array_equal(of_file, expected)
    with pytest.raises(NtupleError, match="has no column"):
        compute_sweights(pd.DataFrame({"x": [1.0]}), shape)
