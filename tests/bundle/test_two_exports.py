"""Two exports to one name at once leave the whole result of one of them."""

import re
import subprocess
import sys
import threading
import time
import warnings
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd
import pytest

from pidgan.bundle import triton
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.errors import NtupleError
from pidgan.files.writing import writing_file

BUNDLE = Path(__file__).parents[1] / "golden" / "kaon.onnx"
C_EXPORT = """
import sys, time
from pathlib import Path
from pidgan.bundle.c_file import export_c
from pidgan.errors import NtupleError
bundle, path, name, times, overwrite = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(times)):
    try:
        export_c(bundle, path, name=name, overwrite=overwrite == "overwrite")
        print("wrote")
    except NtupleError as error:
        print(error)
"""


def export_side_by_side(path: Path, times: int, overwrite: str) -> list[str]:
    """Let two processes export C files of two names; return what they say."""
    words = [(str(BUNDLE), str(path), name, str(times), overwrite) for name in NAMES]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [
        subprocess.Popen([sys.executable, "-c", C_EXPORT, *given], **pipes)  # type: ignore[call-overload]
        for given in words
    ]
    for one in running:
        assert one.stdout.readline() == "ready\n"
    for one in running:
        one.stdin.write("go\n")
        one.stdin.flush()
    said = [one.communicate(timeout=120)[0] for one in running]
    return "".join(said).splitlines()


NAMES = ("first_one", "second_one")


def check_pair(path: Path) -> None:
    """A C file and its header are of one export, and nothing else is there."""
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.c", "a.h"]
    found = [
        {name for name in NAMES if re.search(rf"\b{name}", file.read_text("ascii"))}
        for file in (path, path.with_suffix(".h"))
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 1


def test_two_processes_write_one_c_file_and_its_header(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.c"
    path.parent.mkdir()
    said = export_side_by_side(path, 1, "no")
    assert sorted(line.partition(";")[0] for line in said) == [
        f"{path} exists",
        "wrote",
    ]
    check_pair(path)
    said = export_side_by_side(path, 8, "overwrite")
    assert said == ["wrote"] * 16
    check_pair(path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_triton_model_and_its_configuration_are_of_one_export(
    tmp_path: Path, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[int] = []

    def slow(path: Path, **given: bool) -> AbstractContextManager[Path]:
        # Whose configuration comes last is not whose model stays.
        time.sleep(0.1)
        first.append(threading.get_ident())
        is_first = first[0] == threading.get_ident()
        if path.name == triton.MODEL:
            time.sleep(0.5 if is_first == overwrite else 0.2)
        elif not is_first:
            time.sleep(0.1)
        return writing_file(path, **given)

    monkeypatch.setattr(triton, "writing_file", slow)
    bundles = [open_bundle(BUNDLE), open_bundle(BUNDLE.with_name("showers.onnx"))]
    start, said = threading.Barrier(2), []

    def work(bundle: Bundle) -> None:
        start.wait()
        try:
            triton.export_triton(bundle, tmp_path, name="m", overwrite=overwrite)
            said.append("wrote")
        except NtupleError as error:
            said.append(str(error).partition(";")[0])

    threads = [threading.Thread(target=work, args=(b,)) for b in bundles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model = tmp_path / "m" / "1" / "model.onnx"
    second = "wrote" if overwrite else f"{model} exists"
    assert sorted(said) == sorted(["wrote", second])
    config = (tmp_path / "m" / "config.pbtxt").read_text("utf-8")
    assert config == triton.triton_config(open_bundle(model), "m")


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_threads_write_one_bundle_and_its_reference(
    kaon_model, tmp_path: Path, overwrite: bool
) -> None:
    from pidgan.training.export import export_bundle

    path = tmp_path / "a.onnx"
    rows = kaon_model.reference()
    parts = {"even": rows.iloc[::2], "odd": rows.iloc[1::2]}
    start, said = threading.Barrier(2), []

    def work(part: pd.DataFrame) -> None:
        start.wait()
        try:
            export_bundle(kaon_model, path, reference=part, overwrite=overwrite)
            said.append("wrote")
        except NtupleError as error:
            said.append(str(error).partition(";")[0])

    threads = [threading.Thread(target=work, args=(p,)) for p in parts.values()]
    with warnings.catch_warnings():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(said) == (["wrote"] * 2 if overwrite else [f"{path} exists", "wrote"])
    assert len([*tmp_path.iterdir()]) == 2
    found = open_bundle(path).reference().reset_index(drop=True)
    wanted = [p.reset_index(drop=True) for p in parts.values()]
    assert any(found.equals(p[found.columns.tolist()]) for p in wanted)
