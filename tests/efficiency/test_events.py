"""Rows of the same event count as one: laws, coverage on toys, keys of files."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from command_line import Run
from toy_generator import ToyGenerator, make_card
from toy_map import GENERATED, SHARES, TRUTH, draw_rows, make_map

from pidgan.application.apply import apply
from pidgan.efficiency import sums
from pidgan.efficiency.analysis_rows import Rows, TrackRows
from pidgan.efficiency.events import EventSums, event_keys, find_events, square_sums
from pidgan.efficiency.pid_efficiency import PidEfficiencies, combine, pid_efficiency
from pidgan.efficiency.selections import Selection
from pidgan.errors import NtupleError
from pidgan.files.tables import write_trees

BINS = {"x": (0.0, 1.0, 2.0)}
SELECTIONS = [
    Selection(text="a0", cuts={"a": 0}),
    Selection(text="a1 & b0", cuts={"a": 1, "b": 0}),
    Selection(text="a0 & b0 & c0", cuts={"a": 0, "b": 0, "c": 0}),
]
MAPS = dict.fromkeys("abc", make_map())


def with_events(rows: Rows, keys: np.ndarray, **changes: Any) -> Rows:
    events = find_events(keys.astype(np.uint64))
    return replace(rows, events=events, binning=BINS, **changes)


def same_numbers(one: PidEfficiencies, other: PidEfficiencies, **room: float) -> None:
    for name in ("stat", "covariance"):
        a, b = (getattr(found.estimates, name) for found in (one, other))
        np.testing.assert_allclose(a, b, **{"rtol": 1e-9, "atol": 1e-15, **room})
    np.testing.assert_allclose(one.estimates.values, other.estimates.values, rtol=1e-12)


# Laws


@pytest.mark.parametrize("block", [7, 100_000])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_given_several_times_are_the_same_measurement(
    monkeypatch: pytest.MonkeyPatch, weighted: bool, block: int
) -> None:
    """In every uncertainty, in bins, with weights of both signs, in any order."""
    monkeypatch.setattr(sums, "BLOCK_ROWS", block)
    rows = replace(draw_rows(1, 400, weighted=weighted), binning=BINS)
    once = combine(SELECTIONS, rows, MAPS)
    order = np.random.default_rng(2).permutation(np.repeat(np.arange(400), 4))
    again = combine(SELECTIONS, with_events(rows.take(order), order), MAPS)
    same_numbers(once, again)
    for one, four in zip(once, again, strict=True):
        assert (four.n_rows, four.n_events) == (4 * one.n_rows, one.n_rows)
        assert four.n_eff == pytest.approx(one.n_eff)
        assert four.syst == pytest.approx(one.syst)
    # Without the key, the error of the sample would be half as large.
    wrong = combine(SELECTIONS, replace(rows.take(order), binning=BINS), MAPS)
    np.testing.assert_allclose(wrong.estimates.stat, once.estimates.stat / 4, atol=1e-6)


def test_events_of_one_row_change_nothing() -> None:
    rows = replace(draw_rows(3, 500, weighted=True), binning=BINS)
    keys = np.random.default_rng(1).permutation(500)
    plain = combine(SELECTIONS, rows, MAPS)
    keyed = combine(SELECTIONS, with_events(rows, keys), MAPS)
    # But for the last digit: products of matrices depend on where their rows lie.
    np.testing.assert_allclose(plain.covariance, keyed.covariance, rtol=1e-14)
    for one, other in zip(plain.results, keyed.results, strict=True):
        for name, value in vars(one).items():
            if isinstance(value, float):
                value = pytest.approx(value, rel=1e-14, nan_ok=True)
            assert vars(other)[name] == value, name


def dense_covariance(rows: Rows, found: PidEfficiencies) -> np.ndarray:
    """The formula, written with a matrix of rows by estimates."""
    assert rows.events is not None
    influence = []
    for number, selection in enumerate(SELECTIONS):
        factors = sums.factors_of(selection, rows, MAPS, correction=True)
        v = np.prod(factors, axis=0)
        for cell in range(2):
            inside = rows.cell == cell
            total = rows.weights[inside].sum()
            mean = found.estimates.values[2 * number + cell]
            influence.append(np.where(inside, rows.weights * (v - mean) / total, 0))
    one = np.eye(len(rows.events.ids))[rows.events.number]
    by_event = np.array(influence) @ one
    return np.asarray(by_event @ by_event.T)


@pytest.mark.parametrize("block", [5, 100_000])
def test_covariance_is_that_of_sums_over_events(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Events with rows in several bins correlate the bins."""
    monkeypatch.setattr(sums, "BLOCK_ROWS", block)
    rows = draw_rows(4, 300, weighted=True)
    keys = np.random.default_rng(5).integers(0, 60, 300)
    rows = with_events(rows, keys)
    found = combine(SELECTIONS, rows, MAPS)
    expected = dense_covariance(rows, found)
    np.testing.assert_allclose(found.estimates.stat, expected, rtol=1e-9, atol=1e-15)
    assert np.abs(expected[0, 1]) > 1e-5


def test_ratio_of_samples_with_common_events() -> None:
    """Two selections of the same events, whose rows are not those of one file."""
    rows = draw_rows(6, 400)
    keys = np.random.default_rng(7).integers(0, 150, 400)
    both = with_events(rows, keys)
    whole = combine(SELECTIONS, both, MAPS)
    half = np.sort(np.random.default_rng(8).permutation(400)[:250])
    part = combine(SELECTIONS, with_events(rows.take(half), keys[half]), MAPS)
    shared = (whole.estimates - part.estimates).stat
    first, second = (next(iter(one.estimates.samples)) for one in (whole, part))
    cross = first.shared_covariance(second)
    expected = whole.estimates.stat + part.estimates.stat - cross - cross.T
    np.testing.assert_allclose(shared, expected, rtol=1e-9)
    assert np.diag(cross).min() > 0.3 * np.diag(whole.estimates.stat).min()
    # A sample and itself, by way of the events, is the covariance of the sample.
    again = combine(SELECTIONS, with_events(rows, keys + 0), MAPS)
    itself = first.shared_covariance(next(iter(again.estimates.samples)))
    np.testing.assert_allclose(itself, whole.estimates.stat, rtol=1e-9, atol=1e-12)
    other = combine(SELECTIONS, with_events(rows, keys + 1000), MAPS)
    assert first.shared_covariance(next(iter(other.estimates.samples))) is None


def test_sums_do_not_depend_on_blocks() -> None:
    rng = np.random.default_rng(1)
    number = np.sort(rng.integers(0, 12, 100))
    values = rng.normal(size=(3, 100))
    expected = np.array([np.bincount(number, row, 12) for row in values])
    for size in (1, 3, 40, 100):
        found = EventSums(3)
        parts = [
            found.add(values[:, i : i + size], number[i : i + size])
            for i in range(0, 100, size)
        ]
        got = np.concatenate([*parts, found.finish()], axis=1)
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_counter_events_cancel() -> None:
    """Weights of one event that add up to nothing are no fluctuation."""
    weights, group = np.array([1.0, -1.0, 2.0]), np.zeros(3, dtype=np.int64)
    events = find_events(np.array([5, 5, 7], dtype=np.uint64))
    squares, counts = square_sums(weights, group, 1, events)
    assert (squares.tolist(), counts.tolist()) == ([4.0], [2])


# Coverage: the issue is the error under a true correlation within events


def correlated(rng: np.random.Generator, n: int) -> Rows:
    """Events of one to six candidates, most of whose tracks are the same one."""
    size = rng.integers(1, 7, n)
    event = np.repeat(np.arange(n), size)
    place, u = rng.choice(3, n, p=SHARES), rng.random(n)
    is_same = rng.random(len(event)) < 0.8
    place = np.where(is_same, place[event], rng.choice(3, len(event), p=SHARES))
    u = np.where(is_same, u[event], rng.random(len(event)))
    own = TrackRows(place=place, passed={0: u < TRUTH[0][place]})
    weights = rng.choice([1.3, -0.5], n, p=[0.8, 0.2])[event]
    rows = Rows(tracks={"a": own}, weights=weights, cell=np.zeros(len(event), int))
    return replace(rows, events=find_events(event.astype(np.uint64)))


def test_error_covers_with_a_true_correlation_within_events() -> None:
    truth = float(TRUTH[0] @ SHARES)
    exact = make_map(generated=TRUTH, discrepancy=np.zeros((2, 3)))
    selection = Selection(text="a0", cuts={"a": 0})
    n_toys = int(os.environ.get("PIDGAN_TOYS", "400"))
    pulls = np.empty((n_toys, 2))
    for seed in range(n_toys):
        rows = correlated(np.random.default_rng(seed), 300)
        for column, one in enumerate((rows, replace(rows, events=None))):
            (found,) = combine([selection], one, {"a": exact})
            pulls[seed, column] = (found.value - truth) / found.stat
    by_event, by_row = pulls.T
    # One standard deviation of the rms of a pull is 1 / sqrt(2 n).
    room = 4 / np.sqrt(2 * n_toys)
    assert by_event.std() == pytest.approx(1.0, abs=room)
    assert abs(by_event.mean()) < 4 / np.sqrt(n_toys)
    assert (np.abs(by_event) < 1).mean() == pytest.approx(0.683, abs=0.5 * room)
    # Rows as if they were independent: twice too precise.
    assert by_row.std() > 1.6


# Files


def ntuple(seed: int = 1, n: int = 900) -> dict[str, np.ndarray]:
    """Candidates of a third as many events, each twice with the same track."""
    rng = np.random.default_rng(seed)
    event = rng.permutation(np.repeat(np.arange(n // 3), 3))
    p = np.exp(rng.uniform(np.log(3e3), np.log(1e5), n // 3))[event]
    place = np.searchsorted((3e3, 1e4, 3e4, 1e5), p, side="right") - 1
    u = rng.random(n // 3)[event]
    return {
        "run": np.full(n, 2**40 + seed, dtype=np.uint64),
        "evt": event.astype(np.int32),
        "sw": rng.choice([1.2, -0.4], n, p=[0.8, 0.2]),
        "K_P": p.astype(np.float32),
        "K_ETA": rng.uniform(2, 5, n).astype(np.float32),
        "K_DLLk": np.where(u < GENERATED[0][place], 3.0, -4.0),
    }


# The map is drawn: it is of no bundle.
OPTIONS: dict[str, Any] = {
    "maps": {"K": make_map()},
    "cuts": "DLLk > 0",
    "trust": True,
}


def test_events_of_files_and_chunks_are_put_together(tmp_path: Path) -> None:
    columns = ntuple()
    whole = tmp_path / "whole.root"
    write_trees(whole, {"T": columns})
    first = np.random.default_rng(3).random(900) < 0.4
    halves = [tmp_path / "a.root", tmp_path / "b.parquet"]
    for path, chosen in zip(halves, (first, ~first), strict=True):
        write_trees(path, {"T": {k: v[chosen] for k, v in columns.items()}})
    key = ("run", "evt")
    bins = {"K_P": [3e3, 2e4, 1e5]}
    for options in ({}, {"binning": bins, "weights": "sw"}):
        found = [
            pid_efficiency(files=files, key=key, chunk=chunk, **OPTIONS, **options)
            for files, chunk in ((whole, 10_000), (whole, 17), (halves, 100))
        ]
        for other in found[1:]:
            same_numbers(found[0], other)
        assert found[0].key == key
        assert found[0][0].n_rows == 3 * found[0][0].n_events
    alone = pid_efficiency(files=whole, **OPTIONS)
    assert alone[0].n_events == 900
    assert found[0][0].stat > 1.2 * alone[0].stat
    for other in (ntuple(seed=2), {**columns, "run": columns["run"].astype(float)}):
        write_trees(tmp_path / "c.root", {"T": other}, overwrite=True)
        both = pid_efficiency(files=[whole, tmp_path / "c.root"], key=key, **OPTIONS)
        # Another run has other events; a run stored as double has the same ones.
        assert both[0].n_events == (600 if other["run"].dtype.kind == "u" else 300)


@pytest.mark.parametrize(
    "names", [("run", "event"), ("__experiment__", "__run__", "__event__")]
)
def test_usual_names_of_an_event_are_known(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    columns = ntuple()
    key = dict.fromkeys(names, columns["run"]) | {names[-1]: columns["evt"]}
    write_trees(tmp_path / "a.root", {"T": columns | key})
    found = pid_efficiency(files=tmp_path / "a.root", **OPTIONS)
    assert found.key == names
    assert (found[0].n_rows, found[0].n_events) == (900, 300)


def test_tracks_of_an_entry_are_one_event(tmp_path: Path) -> None:
    """A collection needs no key; its tracks have the uncertainty of the same rows."""
    columns = ntuple()
    order = np.argsort(columns["evt"], kind="stable")
    flat = {name: values[order] for name, values in columns.items()}
    nested = {
        name: ak.unflatten(values, np.full(300, 3))
        for name, values in flat.items()
        if name.startswith("K_")
    }
    write_trees(tmp_path / "flat.root", {"T": flat})
    write_trees(tmp_path / "nested.root", {"T": nested})
    expected = pid_efficiency(files=tmp_path / "flat.root", key=["evt"], **OPTIONS)
    for chunk in (10_000, 13):
        found = pid_efficiency(files=tmp_path / "nested.root", chunk=chunk, **OPTIONS)
        same_numbers(found, expected)
        assert (found[0].n_rows, found[0].n_events) == (900, 300)
    # Files with and without a key: entries are events where no key is known.
    both = [tmp_path / "nested.root", tmp_path / "flat.root"]
    assert pid_efficiency(files=both, **OPTIONS)[0].n_events == 300 + 900


@pytest.fixture
def applied(tmp_path: Path) -> Path:
    """An ntuple whose candidates were generated by event, three in each."""
    path, columns = tmp_path / "applied.root", ntuple()
    write_trees(tmp_path / "in.root", {"T": columns})
    apply(
        {"K": ToyGenerator(card=make_card())},
        tmp_path / "in.root",
        path,
        mode="replace",
        key=("run", "evt"),
    )
    return path


def test_the_record_knows_the_key(applied: Path, tmp_path: Path) -> None:
    found = pid_efficiency(files=applied, **OPTIONS)
    assert found.key == ("run", "evt")
    assert (found[0].n_rows, found[0].n_events) == (900, 300)
    assert json.loads(found.to_json())["key"] == ["run", "evt"]
    assert json.loads(found.to_json())["results"][0]["n_events"] == 300
    assert "900 rows of 300 events by run,evt, effectively 300" in found.text()
    assert found.frame()["n_events"].tolist() == [300]
    explicit = pid_efficiency(files=applied, key=("run", "evt"), **OPTIONS)
    assert explicit.results == found.results
    binned = pid_efficiency(files=applied, binning={"K_P": [3e3, 2e4, 1e5]}, **OPTIONS)
    assert "rows of one event by run,evt count as one" in binned.text()


def test_the_command_line_takes_a_key(applied: Path, run: Run, tmp_path: Path) -> None:
    file, *_ = make_map().save(tmp_path / "map.json")
    words = ("efficiency", applied, "--map", f"K={file}", "--cut", "DLLk > 0", "--json")
    words = (*words, "--trust")
    found, other = (
        json.loads(run(*words, *more).out) for more in ((), ("--key", "run"))
    )
    assert found["key"] == ["run", "evt"]
    assert found["results"][0]["n_events"] == 300
    assert other["results"][0]["n_events"] == 1


def test_bad_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.root"
    write_trees(path, {"T": ntuple()})
    with pytest.raises(NtupleError, match=r"no branch 'evnt', .*closest: 'evt'"):
        pid_efficiency(files=path, key=("run", "evnt"), **OPTIONS)
    with pytest.raises(
        ValueError, match="which belongs to a track; expected branches that"
    ):
        pid_efficiency(files=path, key=("K_{track}",), **OPTIONS)
    with pytest.raises(TypeError, match="key is 'evt'"):
        pid_efficiency(files=path, key="evt", **OPTIONS)


def test_names_are_part_of_a_key() -> None:
    columns = {"run": np.arange(5), "lumi": np.arange(5)}
    assert not np.isin(
        event_keys(["run"], columns), event_keys(["lumi"], columns)
    ).any()
