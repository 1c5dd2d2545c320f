"""A sample larger than memory has the dataset of the same rows in memory."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pidgan.errors import (
    DatasetError,
    NtupleError,
    PidganError,
    PidganWarning,
    SampleError,
)
from pidgan.files import mapped
from pidgan.files.in_order import in_order
from pidgan.files.tables import find_sources, read_columns, write_table
from pidgan.progress import Bar
from pidgan.sample import binned_sweights, event_numbers, rows, weighing
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.sample.event_numbers import EventNumbers
from pidgan.sample.loading import load_sample
from pidgan.sample.splitting import split_events
from pidgan.sample.sweights import alternative_sweights, compute_sweights

N = 12_000
FIT_ROWS = int(os.environ.get("PIDGAN_FIT_ROWS", "15000"))


@pytest.fixture(scope="module")
def table(calibration_file: Path) -> pd.DataFrame:
    """Rows of a sample with a mass to fit, events of several rows, and bad rows."""
    sample = load_sample("sim_dstar_k")
    trees = find_sources(calibration_file, trees=sample.trees)
    frames = [read_columns(source, list(sample.branches)) for source in trees]
    found = pd.concat(frames, ignore_index=True)[:N]
    rng = np.random.default_rng(3)
    found["runNumber"] = np.arange(N, dtype=np.uint32) // 4000
    found["eventNumber"] = rng.integers(0, 3000, N).astype(np.uint64)
    found["Polarity"] = rng.choice([-1.0, 1.0], N)
    found.loc[5, "probe_P"] = np.nan
    found.loc[40:60, "probe_Brunel_RichDLLk"] = -999.0
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower all limits, so that a small sample is a large one."""
    for module, name, value in (
        (mapped, "MEMORY_BYTES", 10_000),
        (mapped, "LARGE_BYTES", 1000),
        (mapped, "BLOCK_BYTES", 5000),
        (weighing, "UNBINNED_ROWS", 1000),
        (weighing, "BLOCK_ROWS", 1700),
        (event_numbers, "MEMORY_ROWS", 1000),
        (event_numbers, "BUCKET_ROWS", 1500),
        (event_numbers, "BLOCK_ROWS", 900),
    ):
        monkeypatch.setattr(module, name, value)


def build(files: Any, **more: Any) -> Dataset:
    with pytest.warns(PidganWarning):
        return build_dataset(
            "sim_dstar_k", files, keep=("Polarity",), progress=False, **more
        )


def files_of(table: pd.DataFrame, folder: Path, number: int) -> list[Path]:
    edges = np.linspace(0, len(table), number + 1).astype(int)
    paths = [folder / f"part{k}.parquet" for k in range(number)]
    for path, start, stop in zip(paths, edges[:-1], edges[1:], strict=True):
        write_table(path, table[start:stop].reset_index(drop=True), overwrite=True)
    return paths


@pytest.fixture(scope="module")
def expected(table: pd.DataFrame) -> Dataset:
    return build(table)


def assert_same(found: Dataset, expected: Dataset) -> None:
    for name in ("conditions", "targets", "discriminant"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.kept[:, 0], expected.kept[:, 0])
    for name in ("rows_read", "dropped", "spikes", "events", "kept", "alternatives"):
        assert found.info[name] == expected.info[name], name
    scale = np.abs(expected.weights).max()
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-5 * scale)
    np.testing.assert_allclose(
        found.alternatives, expected.alternatives, atol=1e-5 * scale
    )
    assert found.info["sum_weights"] == pytest.approx(
        expected.info["sum_weights"], rel=1e-6
    )
    fits = [one.info["fit"] for one in (found, expected)]
    for name in ("chi2", "counts", "n_dof"):
        assert fits[0][name] == pytest.approx(fits[1][name])
    assert fits[0]["parameters"] == fits[1]["parameters"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("number", [1, 7])
def test_any_number_of_files_gives_the_dataset_of_the_rows_in_memory(
    table: pd.DataFrame, expected: Dataset, tmp_path: Path, number: int
) -> None:
    found = build(files_of(table, tmp_path, number), scratch=tmp_path)
    assert mapped.file_of(found.targets) is not None
    assert_same(found, expected)
    assert found.info["fit"]["binned"]
    # The same events, of another order of numbers.
    pairs = np.stack([found.kept[:, 1], expected.kept[:, 1]])
    assert len(np.unique(pairs, axis=1).T) == expected.info["events"]
    pairs = np.stack([found.split, expected.kept[:, 1]])
    assert len(np.unique(pairs, axis=1).T) == expected.info["events"]


@pytest.mark.parametrize(
    ("threads", "chunk"), [(1, 100), (2, 999), (5, 999), (2, 50_000)]
)
def test_rows_depend_neither_on_chunks_nor_on_threads(
    table: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    chunk: int,
) -> None:
    sample, paths = load_sample("sim_dstar_k"), files_of(table, tmp_path, 2)
    silent = Bar("prepare", show=False)
    with pytest.warns(PidganWarning):
        one = rows.read_rows(sample, paths, bar=silent, threads=1)
    monkeypatch.setattr(rows, "BASKET_ENTRIES", chunk)
    monkeypatch.setattr(rows, "PIECE_ENTRIES", 3 * chunk)
    with pytest.warns(PidganWarning):
        other = rows.read_rows(sample, paths, bar=silent, threads=threads)
    assert one.arrays.keys() == other.arrays.keys()
    for name, values in one.arrays.items():
        np.testing.assert_array_equal(other.arrays[name], values)
    assert one.dropped == other.dropped
    assert one.spikes == other.spikes
    assert one.files == other.files


@pytest.mark.usefixtures("small")
def test_a_large_dataset_is_saved_and_opened(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    found = build(table, scratch=scratch)
    found.save(tmp_path / "kaon")
    opened = Dataset.open(tmp_path / "kaon")
    assert opened.info == found.info
    for name in found.arrays:
        np.testing.assert_array_equal(getattr(opened, name), getattr(found, name))
    again = opened.save(tmp_path / "copy")
    assert Dataset.open(again).info["hash"] == found.info["hash"]
    in_memory = dataclasses.replace(
        found, **{name: np.array(getattr(found, name)) for name in found.arrays}
    )
    in_memory.save(tmp_path / "memory")
    for file in (tmp_path / "kaon").iterdir():  # bit by bit, also the headers
        assert file.read_bytes() == (tmp_path / "memory" / file.name).read_bytes()
    pd.testing.assert_frame_equal(opened.frame("test"), in_memory.frame("test"))
    del found, in_memory, opened
    assert not list(scratch.iterdir())


@pytest.mark.usefixtures("small")
def test_a_run_that_fails_leaves_nothing(table: pd.DataFrame, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    paths = files_of(table, tmp_path, 3)
    short = table[8000:].drop(columns="probe_Brunel_RichDLLp").reset_index(drop=True)
    write_table(paths[2], short, overwrite=True)
    with pytest.raises(NtupleError, match=r"part2.*has no branch.*RichDLLp"):
        build_dataset("sim_dstar_k", paths, scratch=scratch, progress=False)
    write_table(paths[2], table[:0], overwrite=True)
    with pytest.raises(NtupleError, match=r"part2.*is empty"):
        build_dataset("sim_dstar_k", paths, scratch=scratch, progress=False)
    flat = table.assign(D0_M=np.linspace(1826, 1909, N), Polarity=1.0)
    with pytest.raises(PidganError), pytest.warns(PidganWarning):
        build_dataset("sim_dstar_k", flat, scratch=scratch, progress=False)
    assert not scratch.exists() or not list(scratch.iterdir())


@pytest.mark.usefixtures("small")
def test_a_constant_condition_is_left_out_of_a_large_sample(
    table: pd.DataFrame, expected: Dataset
) -> None:
    with pytest.warns(PidganWarning) as told:
        found = build_dataset("sim_dstar_k", table.assign(nTracks=80), progress=False)
    assert any("left out: nTracks = 80" in str(one.message) for one in told)
    assert found.sample.condition_names == ("P", "ETA")
    np.testing.assert_array_equal(found.conditions, expected.conditions[:, :2])


@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore::pidgan.errors.PidganWarning")
def test_targets_off_their_grid_are_counted(table: pd.DataFrame) -> None:
    content = load_sample("sim_dstar_k").model_dump(mode="json", by_alias=True)
    content["targets"][0]["step"] = 0.5
    sample = Sample.model_validate_json(json.dumps(content))
    name = sample.targets[0].inputs[0]
    half = table.assign(**{name: np.rint(table[name]) / 2})
    half.loc[N - 100, name] = np.float32(0.3)
    with pytest.raises(SampleError, match=r"not on its grid in 1 of 1\d+ rows, 0.3"):
        build_dataset(sample, half, progress=False)


@pytest.mark.parametrize("signal", ["gauss", "double_gauss", "crystal_ball"])
def test_weights_from_counts_are_those_from_rows(signal: str) -> None:
    sample = load_sample("sim_dstar_k")
    assert sample.discriminant is not None
    shape = sample.discriminant.model_copy(update={"signal": signal})
    rng = np.random.default_rng(5)
    low, high = shape.range
    n = FIT_ROWS // 5
    mass = np.append(rng.normal(1865, 6, 3 * n), rng.uniform(low, high, 2 * n))
    mass = mass[(mass >= low) & (mass <= high)]
    result = compute_sweights(mass, shape)
    others = alternative_sweights(mass, shape)
    blocks = np.array_split(mass, 7)
    found, table, tables = binned_sweights.binned_sweights(
        blocks, shape, source="the sample"
    )
    assert np.abs(table.of(mass) - result.weights).max() < 1e-5
    assert table.of(mass).sum() == pytest.approx(result.weights.sum(), rel=1e-6)
    assert found.yields["signal"] == pytest.approx(result.yields["signal"], rel=1e-6)
    assert tables.keys() == others.keys()
    for name, weights in others.items():
        assert np.abs(tables[name].of(mass) - weights).max() < 1e-5, name


@pytest.mark.usefixtures("small")
def test_events_are_numbered_in_buckets() -> None:
    rng = np.random.default_rng(1)
    events = rng.integers(0, 4000, 9000)
    hashes = rng.integers(0, 2**64, 4000, dtype=np.uint64)[events]
    found = EventNumbers(hashes)
    numbers = np.concatenate([block for _, block in found.blocks()])
    assert found.events == len(np.unique(events)) == numbers.max() + 1
    assert len(np.unique(np.stack([numbers, events]), axis=1).T) == found.events
    assert EventNumbers(np.unique(hashes)).are_rows
    split = split_events(9000, (0.6, 0.1, 0.3), 2, events=found)
    assert len(np.unique(np.stack([split, events]), axis=1).T) == found.events
    assert np.bincount(split)[:3] / 9000 == pytest.approx([0.6, 0.1, 0.3], abs=0.03)


def test_large_splits_have_the_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pidgan.sample.splitting.BLOCK_EVENTS", 1000)
    split = split_events(4500, (0.6, 0.1, 0.3), 2)
    np.testing.assert_array_equal(np.bincount(split), [2700, 450, 1350])
    np.testing.assert_array_equal(split[:1000], split_events(1000, (0.6, 0.1, 0.3), 2))
    assert (split[:1000] != split[1000:2000]).any()


def test_results_come_in_order_and_errors_end_the_work() -> None:
    assert list(in_order(lambda x: x * x, range(50), threads=3)) == [
        x * x for x in range(50)
    ]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda x: 1 / (x - 5), range(50), threads=3))


def test_no_rows_are_told(table: pd.DataFrame) -> None:
    sample = load_sample("sim_dstar_k")
    narrow = sample.conditions[0].model_copy(update={"range": (20e3, 20.001e3)})
    sample = sample.model_copy(
        update={"conditions": (narrow, *sample.conditions[1:]), "binning": {}}
    )
    p = np.where(np.arange(N) % 2, 2e4 - 1, 2e4 + 2)
    with pytest.raises(DatasetError, match=r"no rows left; dropped for .*P out of ra"):
        build_dataset(sample, table.assign(probe_P=p), progress=False)


@pytest.mark.skipif(os.name != "posix", reason="hard links")
def test_saving_needs_no_second_copy(tmp_path: Path) -> None:
    growing = mapped.GrowingArrays(tmp_path, limit=100)
    for k in range(10):
        growing.append({"x": np.full((20, 2), k, dtype=np.float32)})
    array = growing.finish()["x"]
    file = mapped.file_of(array)
    assert file is not None
    mapped.store_array(array, tmp_path / "new.npy")
    assert (tmp_path / "new.npy").stat().st_ino == file.stat().st_ino
    np.testing.assert_array_equal(np.load(tmp_path / "new.npy"), array)
    np.save(tmp_path / "own.npy", np.array(array))
    assert (tmp_path / "own.npy").read_bytes() == file.read_bytes()
    assert mapped.file_of(array[1:]) is None
    rows_of = np.array([0, 3, 50, 199])
    np.testing.assert_array_equal(mapped.take_rows(array, rows_of), array[rows_of])
