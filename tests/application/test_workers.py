"""Threads, processes, Dask, parts, kills: the outputs are always the same."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from many_files import ENTRIES, FILES, TARGETS, command, contents, same, write
from toy_generator import ToyGenerator, make_card, toy_onnx, with_self_test

from pidgan.application.apply import apply
from pidgan.application.workers import MEMORY_SHARE, share_machine
from pidgan.errors import NtupleError, PidganWarning
from pidgan.files.tables import Source, read_columns, write_trees

pytest.importorskip("onnx")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "kaon.onnx"
    path.write_bytes(toy_onnx(with_self_test(make_card())))
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> str:
    """Files with different numbers of entries, the last one's name not the largest."""
    for i in range(FILES):
        write(tmp_path / f"in/part{8 + i}.root", i)
    return f"{tmp_path}/in/*.root:T"


@pytest.fixture
def whole(bundle: Path, inputs: str, tmp_path: Path) -> Path:
    """Outputs of one process with one thread."""
    apply({"K": bundle}, inputs, tmp_path / "whole", threads=1)
    return tmp_path / "whole"


@pytest.mark.parametrize("key", [(), ("event",)])
def test_processes_do_what_one_does(
    bundle: Path, inputs: str, tmp_path: Path, key: tuple[str, ...]
) -> None:
    seen: list[tuple[int, int]] = []
    one = apply({"K": bundle}, inputs, tmp_path / "one", threads=1, key=key)
    two = apply(
        {"K": bundle},
        inputs,
        tmp_path / "two",
        workers=4,
        threads=3,
        key=key,
        chunk=777,
        progress=lambda done, total: seen.append((done, total)),
    )
    same(tmp_path / "one", tmp_path / "two")
    assert two.counts == one.counts
    assert len(seen) == 1 + FILES
    assert seen[0] == (0, one.entries)
    assert seen[-1] == (one.entries, one.entries)
    for path in (tmp_path / "one").glob("*.json"):
        first, second = (
            json.loads((tmp_path / name / path.name).read_text())
            for name in ("one", "two")
        )
        # The size depends on the chunk: it is that of the compressed baskets.
        assert first | {"output": None} == second | {"output": None}
    again = apply({"K": bundle}, inputs, tmp_path / "two", key=key)
    assert len(again.skipped) == FILES


def test_a_failure_of_a_process_is_named(
    bundle: Path, inputs: str, tmp_path: Path
) -> None:
    damaged = tmp_path / "in/part9.root"
    content = bytearray(damaged.read_bytes())
    with uproot.open({damaged: "T"}) as tree:
        place = tree["K_P"].member("fBasketSeek")[0]
    content[place : place + 60] = bytes(60)
    damaged.write_bytes(content)
    with pytest.raises(NtupleError, match=r"part9.root:T cannot be read"):
        apply({"K": bundle}, inputs, tmp_path / "out", workers=2)
    assert not (tmp_path / "out/part9.root").exists()


def test_a_process_that_is_killed_is_an_error_and_no_obstacle(
    bundle: Path, inputs: str, whole: Path, tmp_path: Path
) -> None:
    def kill(done: int, total: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(NtupleError, match="a worker process was killed, perhaps"):
        apply({"K": bundle}, inputs, tmp_path / "out", workers=2, progress=kill)
    again = apply({"K": bundle}, inputs, tmp_path / "out", workers=2)
    assert 0 < len(again.skipped) < FILES
    same(whole, tmp_path / "out")


def test_generators_without_a_path_stay_here(inputs: str, tmp_path: Path) -> None:
    toy = ToyGenerator(card=make_card())
    with pytest.raises(NtupleError, match="K: several processes need the path of a b"):
        apply({"K": toy}, inputs, tmp_path / "out", workers=2)


@pytest.mark.parametrize("key", [(), ("event",)])
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_together_are_the_whole(
    bundle: Path, inputs: str, tmp_path: Path, parts: int, key: tuple[str, ...]
) -> None:
    whole = apply({"K": bundle}, inputs, tmp_path / "whole", key=key)
    done = [
        apply({"K": bundle}, inputs, tmp_path / "out", files_part=(i, parts), key=key)
        for i in reversed(range(1, parts + 1))
    ]
    same(tmp_path / "whole", tmp_path / "out")
    written = [name for summary in reversed(done) for name in summary.outputs]
    assert [Path(n).name for n in written] == [Path(n).name for n in whole.outputs]
    assert sum(summary.entries for summary in done) == whole.entries
    # The command for all files finds everything done.
    assert len(apply({"K": bundle}, inputs, tmp_path / "out", key=key).skipped) == FILES


def test_chunks_follow_the_memory(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.root", 0)
    outputs = []
    for name, memory in (("much", 2**34), ("little", MEMORY_SHARE * 2400)):
        monkeypatch.setattr(
            "pidgan.application.workers.available_memory", lambda m=memory: m
        )
        seen: list[int] = []
        outputs.append(tmp_path / f"{name}.root")
        apply(
            {"K": bundle},
            tmp_path / "a.root",
            outputs[-1],
            progress=lambda done, total, seen=seen: seen.append(done),
        )
        largest = max(np.diff(seen))
        # 2400 bytes are a hundred entries of three branches of 8 bytes, less headers.
        assert largest == ENTRIES if name == "much" else 90 < largest <= 100
    frames = [read_columns(Source(str(path), "T"), TARGETS) for path in outputs]
    assert frames[0].equals(frames[1])


@pytest.mark.parametrize("cores", [1, 2, 7, 64])
@pytest.mark.parametrize("files", [1, 3, 1000])
def test_cores_are_shared(
    cores: int, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pidgan.application.workers.available_cores", lambda: cores)
    shared = share_machine(files, workers=None, threads=None)
    assert 1 <= shared.workers <= files
    assert shared.workers * shared.threads <= cores
    assert (shared.workers + 1) * shared.threads > cores - shared.workers
    assert share_machine(files, workers=files, threads=5).threads == 5


@pytest.mark.parametrize(
    ("text", "expected"), [("apply()", 1), ('if __name__ == "__main__": apply()', 2)]
)
def test_a_script_without_guard_gets_no_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: int
) -> None:
    monkeypatch.setattr("pidgan.application.workers.available_cores", lambda: 8)
    script = types.ModuleType("__main__")
    script.__file__ = str(tmp_path / "script.py")
    Path(script.__file__).write_text(text)
    monkeypatch.setitem(sys.modules, "__main__", script)
    assert share_machine(3, workers=None, threads=None).workers == expected
    script.__spec__ = ModuleSpec("pidgan.cli", None)
    assert share_machine(3, workers=None, threads=None).workers == 2


def test_a_part_may_hold_nothing(bundle: Path, tmp_path: Path) -> None:
    write_trees(tmp_path / "in/a1.root", {"T": {"K_P": [], "K_ETA": []}})
    write(tmp_path / "in/a2.root", 0)
    options: Any = ({"K": bundle}, f"{tmp_path}/in/*.root:T", tmp_path / "out")
    with pytest.warns(PidganWarning, match=r"a1.root:T has 0 entries"):
        assert apply(*options, files_part=(1, 3)).entries == 0
    assert apply(*options, files_part=(2, 3)).entries == ENTRIES
    assert apply(*options, files_part=(3, 3)).outputs == ()


def test_misuse_is_named(bundle: Path, inputs: str, tmp_path: Path) -> None:
    for options, message in (
        ({"files_part": (0, 3)}, "files_part is 0/3"),
        ({"files_part": (4, 3)}, "files_part is 4/3"),
        ({"workers": 0}, "workers is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"chunk": 0}, "chunk is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            apply({"K": bundle}, inputs, tmp_path / "out", **options)  # type: ignore[arg-type]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A scheduler and two workers, processes of their own, and a client."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
        ) as running,
        distributed.Client(running) as client,
    ):
        yield client


@pytest.mark.filterwarnings("default")
def test_dask_does_what_one_process_does(
    bundle: Path,
    inputs: str,
    whole: Path,
    tmp_path: Path,
    cluster: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    summary = apply({"K": "kaon.onnx"}, "in/*.root:T", "out", client=cluster)
    same(whole, tmp_path / "out")
    assert summary.counts["K"]["generated"] == summary.entries
    again = apply({"K": "kaon.onnx"}, "in/*.root:T", "out")
    assert len(again.skipped) == FILES
    bundle.write_bytes(toy_onnx(with_self_test(make_card(seed=2))))
    with pytest.raises(NtupleError, match=r"part8.root exists and differs in tracks"):
        apply({"K": "kaon.onnx"}, "in/*.root:T", "out", client=cluster)


@pytest.mark.filterwarnings("default")
def test_files_of_a_lost_worker_are_done_by_another(
    bundle: Path, inputs: str, whole: Path, tmp_path: Path, cluster: Any
) -> None:
    victim, *_ = cluster.run(os.getpid).values()
    killed = []

    def kill(done: int, total: int) -> None:
        if done and not killed:
            os.kill(victim, signal.SIGKILL)
            killed.append(done)

    apply({"K": bundle}, inputs, tmp_path / "out", client=cluster, progress=kill)
    assert killed
    same(whole, tmp_path / "out")


@pytest.mark.filterwarnings("default")
def test_the_command_line_finds_a_scheduler(
    bundle: Path, inputs: str, whole: Path, tmp_path: Path, cluster: Any
) -> None:
    out = tmp_path / "out"
    address = cluster.scheduler.address
    words = command(bundle, inputs, out, "--scheduler", address)
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same(whole, out)


def test_without_a_scheduler_or_dask_one_line_says_so(
    bundle: Path, inputs: str, tmp_path: Path
) -> None:
    words = command(bundle, inputs, tmp_path / "out", "--scheduler", "nonsense://x")
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    errors = [t for t in done.stderr.splitlines() if t.startswith("pidgan: error")]
    assert len(errors) == 1
    expected = (
        "no Dask scheduler at nonsense://x"
        if find_spec("distributed")
        else ("needs dask.distributed: pip install '.[scale]'")
    )
    assert expected in errors[0]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_what_is_killed_is_done_by_the_same_command(
    bundle: Path, inputs: str, whole: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    for i in range(FILES):
        write(tmp_path / f"in/part{8 + i}.root", i, entries=20_000)
    apply({"K": bundle}, inputs, whole, overwrite=True)
    out = tmp_path / "out"
    words = command(bundle, inputs, out, *options)
    killed = 0
    # The next kill comes when one more file is done: always in the middle of work.
    for wanted in range(1, FILES):
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        while len(list(out.glob("*.root"))) < wanted and process.poll() is None:
            time.sleep(0.002)
        killed += process.poll() is None
        process.kill()
        process.communicate()
        finished = sorted(out.glob("part*.root"))
        for path in finished:
            name = Source(str(path), "T")
            np.testing.assert_array_equal(
                read_columns(name, TARGETS).to_numpy(), contents(whole)[path.name]
            )
    assert killed >= 2
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "skipped, finished before" in done.stdout
    same(whole, out)
    assert not list(out.glob(".*")), "what killed processes left"


@pytest.mark.parametrize("step", ["before the manifest", "before the output"])
def test_every_step_of_the_end_can_be_the_last(
    bundle: Path,
    inputs: str,
    whole: Path,
    tmp_path: Path,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(BaseException):
        """Stands for the end of the process."""

    renamed = []
    rename = os.replace

    def die(old: Path, new: Path) -> None:
        last = ".json" if step == "before the manifest" else ".root"
        if Path(new).suffix == last:
            raise Killed
        rename(old, new)
        renamed.append(new)

    out = tmp_path / "out"
    apply({"K": bundle}, inputs, out, seed=5)
    with monkeypatch.context() as patch:
        patch.setattr("pidgan.files.trees.os.replace", die)
        with pytest.raises(Killed):
            apply({"K": bundle}, inputs, out, overwrite=True)
    assert len(renamed) == (step == "before the manifest")
    # Whatever is there now, it is taken for what its record says.
    with pytest.raises(NtupleError, match="exists and differs in seed"):
        apply({"K": bundle}, inputs, out)
    finished = apply({"K": bundle}, inputs, out, overwrite=True)
    assert finished.skipped == ()
    same(whole, out)


def test_an_output_without_its_manifest_is_finished(
    bundle: Path, inputs: str, whole: Path
) -> None:
    """A run may be killed between the two; the manifest comes back."""
    beside = [path.with_name(f"{path.name}.json") for path in whole.glob("*.root")]
    contents = {path: path.read_text() for path in beside}
    times = {path: path.stat().st_mtime_ns for path in whole.glob("*.root")}
    beside[0].unlink()
    beside[1].write_text(contents[beside[0]])
    dry = apply({"K": bundle}, inputs, whole, dry_run=True)
    assert len(dry.skipped) == FILES
    assert not beside[0].exists()
    again = apply({"K": bundle}, inputs, whole)
    assert len(again.skipped) == FILES
    assert {path: path.read_text() for path in beside} == contents
    assert {path: path.stat().st_mtime_ns for path in whole.glob("*.root")} == times


def test_a_kill_between_manifest_and_output_is_no_obstacle(
    bundle: Path, inputs: str, whole: Path
) -> None:
    (whole / "part9.root").unlink()
    again = apply({"K": bundle}, inputs, whole)
    assert len(again.skipped) == FILES - 1
    assert len(contents(whole)) == FILES


def test_notes_of_processes_arrive(bundle: Path, tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / f"in/a{i}.root", i)
        with uproot.update(tmp_path / f"in/a{i}.root") as file:
            file.mktree("deep", {"x": "var * 3 * float64"})
    inputs = f"{tmp_path}/in/*.root:T"
    with pytest.warns(PidganWarning, match=r"a\d.root: not copied: deep") as caught:
        apply({"K": bundle}, inputs, tmp_path / "out", workers=2)
    assert len(caught) == 2
    manifest = json.loads((tmp_path / "out/a0.root.json").read_text())
    assert "not copied: deep" in manifest["notes"][0]
