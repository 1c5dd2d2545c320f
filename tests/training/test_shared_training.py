"""Trainings that several processes share: parts of a step, agreements, whole runs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_shower_tree as hadrons

pytest.importorskip("tensorflow")

from pidgan.errors import TrainingError
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.training import feed
from pidgan.training.backend import tf
from pidgan.training.descents import Descents
from pidgan.training.families import check_shared, parse_settings
from pidgan.training.joining import (
    CANNOT_JOIN,
    VARIABLE,
    Place,
    join,
    meet,
    place,
    place_of,
)
from pidgan.training.loop import train
from pidgan.training.model import open_model
from pidgan.training.networks import draws
from pidgan.training.phases import Clock
from pidgan.training.setup import set_up
from pidgan.training.several import _free_addresses
from pidgan.training.together import Together, shared_step

heavy = pytest.mark.skipif(
    "PIDGAN_PROCESSES" not in os.environ, reason="several processes take minutes"
)

PARTS = 4
MOST_SECONDS = 300.0
DENSE = {"width": 8, "batch_size": 32, "energy_width": 8}
GAME = {"likelihood": 0.5, "play": 0.5, "play_batch_size": 32, "critic_sees": ""}
TAUGHT = {"width": 8, "teacher_width": 8, "teacher_blocks": 1, "teacher_bins": 4}
TAUGHT |= {"teach_batch_size": 64, "distil_batch_size": 64, "xla": False}
SHARED: dict[str, dict[str, Any]] = {
    "distilled": TAUGHT,
    "flow": {"width": 8, "blocks": 1, "bins": 4, "batch_size": 64, "xla": False},
    "shower_tree": hadrons.SMALL,
    "shower_sequence": {**DENSE, "memory": 2, "energy_memory": 2, "xla": False},
    "shower_flow": {**DENSE, "couplings": 1, "energy_couplings": 1},
    "shower_vae": {**DENSE, "latent": 2, "energy_couplings": 1},
    "shower_gan": {**DENSE, "latent": 2, "energy_couplings": 1, **GAME},
}
QUICK = ("distilled", "shower_tree")
# Relative to numbers of order one: float32 has 7 digits, and sums of steps follow.
PRECISION = 2e-5


@pytest.fixture(scope="module")
def showers(tmp_path_factory: Any) -> Dataset:
    path = tmp_path_factory.mktemp("hadrons") / "hadrons.npz"
    np.savez(path, **hadrons.hadrons(hadrons.N, 3))
    return build_dataset(hadrons.definition(), path, seed=2)


@pytest.fixture
def data(request: Any, kaon_dataset: Dataset) -> Any:
    """Function that returns the dataset for a family."""

    def of(family: str) -> Dataset:
        if family.startswith("shower"):
            return request.getfixturevalue("showers")
        return kaon_dataset

    return of


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("copies", [1, 3])
def test_parts_have_the_numbers_of_the_whole(axis: int, copies: int) -> None:
    rows, other = 8, 5
    seed = tf.constant([3, 4])

    def shape(n: int) -> tuple[int, int]:
        return (copies * n, other) if axis == 0 else (other, copies * n)

    given = {"axis": axis, "copies": copies}
    whole = draws.normal(shape(rows), seed, **given).numpy()
    parts = []
    for k in range(PARTS):
        with draws.slice_of_rows(k, PARTS):
            parts.append(draws.normal(shape(rows // PARTS), seed, **given).numpy())
    split = [np.array_split(part, copies, axis=axis) for part in parts]
    joined = [part[i] for i in range(copies) for part in split]
    np.testing.assert_array_equal(np.concatenate(joined, axis=axis), whole)


@pytest.mark.parametrize(
    "family",
    [f if f in QUICK else pytest.param(f, marks=heavy) for f in SHARED],
)
def test_gradients_of_parts_are_those_of_the_whole(data: Any, family: str) -> None:
    setup = set_up(data(family), parse_settings(family, SHARED[family]), seed=1)
    check_shared(family, SHARED[family], setup.dataset.sample, PARTS)
    descents = Descents(setup.phases)
    stream, seed = tf.constant([1, 7]), tf.constant([5, 6])
    one = tf.constant(1)
    clock = Clock(step=one, begin=one, end=one, total=one)

    def evaluate(k: int, parts: int) -> list[Any]:
        found: list[Any] = []
        for phase in descents.phases:
            with draws.slice_of_rows(k, parts):
                size, whole = phase.batch_size, phase.sees_whole
                batch = setup.rows.batch(stream, size, whole=whole)
                assert len(batch["x"]) == size // parts
                if phase.prepare is not None:
                    batch = phase.prepare(batch, seed)
                for update in phase.updates:
                    losses, each = descents.gradients(update, batch, seed, clock)
                    found += [*losses.values(), *(g for one in each for g in one)]
        return [np.asarray(tf.convert_to_tensor(v)) for v in found]

    whole = evaluate(0, 1)
    parts = [evaluate(k, PARTS) for k in range(PARTS)]
    assert len(whole) > 4
    for value, *each in zip(whole, *parts, strict=True):
        scale = max(1.0, float(np.abs(value).max()))
        mean = np.mean(each, axis=0)
        np.testing.assert_allclose(mean, value, rtol=0, atol=PRECISION * scale)


def test_what_cannot_be_shared_is_refused(data: Any) -> None:
    for family, changes in {"cramer": {}, "shower_gan": {"critic_sees": ""}}.items():
        sample = data(family).sample
        check_shared(family, changes, sample, 2 if changes else 1)
        with pytest.raises(TrainingError, match=f"family '{family}' compares the rows"):
            check_shared(family, {}, sample, 2)
        with pytest.raises(TrainingError, match=f"family '{family}' compares the rows"):
            train(data(family), family=family, steps=1, processes=2)
    with pytest.raises(TrainingError, match="is a chain"):
        check_shared(None, {}, sample, 2)
    settings = parse_settings("distilled", TAUGHT | {"teach_batch_size": 65})
    setup = set_up(data("distilled"), settings, seed=1)
    phase = setup.phases[0]
    with pytest.raises(TrainingError, match="'teach' has 65 rows a step, which 2 proc"):
        shared_step(
            Descents(setup.phases),
            phase,
            setup.rows,
            together=Together(0, 2),
            xla=False,
        )
    with draws.slice_of_rows(0, 3), pytest.raises(TrainingError, match="8 draws"):
        draws.integers(8, tf.constant([1, 2]), below=5)


def test_what_processes_are_not_given_together(kaon_dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="give callbacks or 2 processes"):
        train(kaon_dataset, steps=1, processes=2, callbacks=[print])
    with pytest.raises(ValueError, match="give from_model or 2 processes"):
        train(kaon_dataset, steps=1, processes=2, from_model="model")
    with pytest.raises(ValueError, match="processes is 0"):
        train(kaon_dataset, steps=1, processes=0)


WRONG = {
    "a:1,b:2": (None, "a cluster and the rank"),
    "": (0, "a cluster and the rank"),
    "host:1": (0, "1 address, expected two"),
    "host,other": (0, "'host', expected HOST:PORT"),
    "host:0,host:1": (0, "'host:0', expected HOST:PORT"),
    "host:1,host:70000": (0, "'host:70000', expected HOST:PORT"),
    "host:1,host:1": (0, "'host:1' twice"),
    "host:1,host:2": (2, "rank is 2, expected 0 to 1"),
}


@pytest.mark.parametrize("text", WRONG)
def test_places_that_cannot_be(text: str) -> None:
    rank, message = WRONG[text]
    with pytest.raises(ValueError, match=message):
        place_of([one for one in text.split(",") if one], rank)


def test_places_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert place_of([], None) is None

    def of(content: Any) -> Place | None:
        text = content if isinstance(content, str) else json.dumps(content)
        monkeypatch.setenv(VARIABLE, text)
        return place_of([], None)

    hosts = ["a:1", "a:2", "b:1"]
    task = {"type": "worker", "index": 1}
    assert of({"cluster": {"worker": hosts}, "task": task}) == Place(tuple(hosts), 1)
    assert Place(tuple(hosts), 1).number_here == 1
    assert Place(tuple(hosts), 2).number_here == 0
    assert of({"cluster": {"worker": ["a:1"]}, "task": task}) is None
    assert of("") is None
    for wrong in (
        "no JSON",
        "[1]",
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": 3}',
    ):
        with pytest.raises(TrainingError, match=f"{VARIABLE} is"):
            of(wrong)
    with pytest.raises(TrainingError, match="has a worker among ps, worker"):
        of({"cluster": {"worker": hosts, "ps": ["c:1"]}, "task": task})
    with pytest.raises(TrainingError, match="TF_CONFIG: rank is 7"):
        of({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": 7}})


def test_a_process_joins_before_tensorflow() -> None:
    with pytest.raises(TrainingError, match="before tensorflow is loaded"):
        join(Place(("a:1", "b:1"), 0))
    assert place() is None


def test_processes_meet_or_give_up() -> None:
    addresses = _free_addresses(3)
    with pytest.raises(TrainingError, match=r"0 waited 0\.1 s for process 1 \("):
        meet(Place(addresses, 0, 0.1))
    with pytest.raises(TrainingError, match=r"process 1 waited 0\.1 s for process 0 a"):
        meet(Place(addresses, 1, 0.1))
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(meet, Place(addresses, 0, 60.0))
        with pytest.raises(TrainingError, match="has another cluster"):
            meet(Place(addresses[:2], 1, 60.0))
        for _ in pool.map(meet, [Place(addresses, k, 60.0) for k in (2, 1)]):
            pass
        first.result()
    port = int(addresses[0].rpartition(":")[2])
    with (
        socket.create_server(("", port)),
        pytest.raises(TrainingError, match=f"0 {CANNOT_JOIN} 127"),
    ):
        meet(Place(addresses, 0))


def _check_equal(model: Any, other: Any) -> None:
    assert model.history.keys() == other.history.keys()
    for name, values in model.history.items():
        np.testing.assert_allclose(
            other.history[name], values, rtol=PRECISION, atol=PRECISION, err_msg=name
        )
    for mine, its in zip(
        model.generator.variables, other.generator.variables, strict=True
    ):
        np.testing.assert_allclose(its, mine, rtol=0, atol=10 * PRECISION)


@heavy
def test_two_processes_are_as_one(data: Any, tmp_path: Path) -> None:
    dataset = data("distilled")
    given: Any = {"family": "distilled", "settings": TAUGHT, "steps": 6, "seed": 5}
    alone = train(dataset, progress=False, **given)
    own, told = tmp_path / "model", []
    shared = train(dataset, processes=2, directory=own, progress=told.append, **given)
    _check_equal(alone, shared)
    assert (own / "checkpoint.npz").is_file()
    assert told[-1].step == 6


@heavy
@pytest.mark.parametrize("family", SHARED)
def test_every_family_is_as_one(data: Any, family: str) -> None:
    given: Any = {"family": family, "settings": SHARED[family], "steps": 6, "seed": 5}
    alone = train(data(family), progress=False, **given)
    _check_equal(alone, train(data(family), processes=2, progress=False, **given))


PROGRAM = """
import sys
from pidgan.training import joining
rank, addresses, folder, output = int(sys.argv[1]), *sys.argv[2:5]
joining.join(joining.Place(tuple(addresses.split(",")), rank))
import pidgan
from pidgan.errors import PidganError
from pidgan.training import feed
given = dict(word.split("=", 1) for word in sys.argv[5:])
if "seed" in given:
    given["seed"] = int(given["seed"])
resume = bool(given.pop("resume", ""))
if window := given.pop("window", ""):
    feed.MEMORY_ROWS, feed.SLAB_ROWS, feed.BLOCK_ROWS = map(int, window.split(","))
try:
    model = pidgan.train(
        folder, directory=output, progress=False, resume=resume, **given
    )
except PidganError as error:
    sys.exit(f"error: {error}")
if rank == 0:
    model.save(output + "-saved", overwrite=True)
print(model.card.steps, model.card.plan)
"""


def _start(*words: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes)


def _addresses() -> str:
    return ",".join(_free_addresses(2))


@heavy
def test_a_process_that_dies_ends_the_others(data: Any, tmp_path: Path) -> None:
    data("distilled").save(tmp_path / "data")
    output, addresses = tmp_path / "model", _addresses()
    words = (addresses, tmp_path / "data", output, "steps=100000")
    with _start(0, *words) as first, _start(1, *words) as second:
        until = time.monotonic() + MOST_SECONDS
        while not (output / "checkpoint.npz").exists() and time.monotonic() < until:
            time.sleep(0.2)
        second.send_signal(signal.SIGKILL)
        _, told = first.communicate(timeout=MOST_SECONDS)
        assert first.returncode == 1
        assert "error: another process of this training has ended" in told


@heavy
def test_the_first_process_decides_and_a_training_goes_on(
    data: Any, tmp_path: Path
) -> None:
    data("distilled").save(tmp_path / "data")
    output = tmp_path / "model"

    def run(*words: str, seconds: float = MOST_SECONDS) -> list[str]:
        addresses = _addresses()
        given = (addresses, tmp_path / "data", output, *words)
        with _start(0, *given) as first, _start(1, *given) as second:
            told = [one.communicate(timeout=seconds) for one in (first, second)]
            assert [first.returncode, second.returncode] == [0, 0], told
        return [out for out, _ in told]

    one, two = run("budget=15s", "family=flow")
    assert one == two  # the same number of steps, and the same plan
    trained = open_model(tmp_path / "model-saved")
    again = run("family=flow", "resume=yes")
    assert again == [one, one]
    _check_equal(trained, open_model(tmp_path / "model-saved"))


@heavy
def test_large_samples_are_shared(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = {"MEMORY_ROWS": 2000, "SLAB_ROWS": 512, "BLOCK_ROWS": 64}
    for name, value in window.items():
        monkeypatch.setattr(feed, name, value)
    data("distilled").save(tmp_path / "data")
    alone = train(data("distilled"), family="flow", steps=8, seed=5, progress=False)
    output = tmp_path / "model"
    numbers = ",".join(map(str, window.values()))
    words = (_addresses(), tmp_path / "data", output, "steps=8", "seed=5")
    words += ("family=flow", f"window={numbers}")
    with _start(0, *words) as first, _start(1, *words) as second:
        told = [one.communicate(timeout=MOST_SECONDS) for one in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], told
    _check_equal(alone, open_model(tmp_path / "model-saved"))


@heavy
def test_processes_that_differ_are_told(data: Any, tmp_path: Path) -> None:
    data("distilled").save(tmp_path / "data")
    words = (_addresses(), tmp_path / "data", tmp_path / "model", "steps=5")
    with _start(0, *words, "seed=1") as first, _start(1, *words, "seed=2") as second:
        for one in (first, second):
            _, told = one.communicate(timeout=MOST_SECONDS)
            assert one.returncode == 1
            assert "the processes of this training differ in seed" in told
