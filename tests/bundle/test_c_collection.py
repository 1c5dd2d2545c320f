"""The C file of a collection gives each row what its own bundle gives it."""

import ctypes
import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import Run
from toy_collection import write_bundles, write_collection

pytest.importorskip("onnx")

from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.c_collection import collection_source, export_collection_c
from pidgan.bundle.collecting import collect
from pidgan.bundle.collection import Collection
from pidgan.errors import BundleError

CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O1")

pytestmark = pytest.mark.skipif(CC is None, reason="needs a C compiler")


def compiled(source: Path, path: Path, *flags: str) -> Path:
    command = [str(CC), *STRICT, *flags, str(source), "-o", str(path), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def test_every_row_gets_what_its_bundle_gives(tmp_path: Path, run: Run) -> None:
    bundles = write_bundles(tmp_path / "bundles")
    collect([tmp_path / "bundles"], tmp_path / "many.toml")
    source = tmp_path / "many.c"
    done = run("export", tmp_path / "many.toml", "--format", "c", "-o", source)
    assert done.code == 0, done.err
    library = ctypes.CDLL(str(compiled(source, tmp_path / "m.so", "-shared", "-fPIC")))
    library.many.restype = ctypes.c_void_p
    members = Collection.open(tmp_path / "many.toml").members
    assert ctypes.c_int.in_dll(library, "many_n_generators").value == len(members) == 24
    rng = np.random.default_rng(1)
    opened = {path.name: open_bundle(path, threads=1) for path in bundles.values()}
    for key, path in bundles.items():
        columns = np.array(key, dtype=np.float64)
        number = library.many_choose(pointer(columns))
        assert Path(members[number].file).name == path.name
        x = np.array([[rng.uniform(5e3, 9e4), rng.uniform(2, 4)]], dtype=np.float32)
        z = rng.standard_normal((1, 3)).astype(np.float32)
        y = np.zeros(2, dtype=np.float32)
        found = library.many(*map(pointer, (y, x, z, columns)))
        assert found == y.ctypes.data
        expected = opened[path.name].generate(x, z)[0]
        np.testing.assert_allclose(y, expected, atol=1e-4)
        again = np.zeros(2, dtype=np.float32)
        own = getattr(library, f"many_{number}")
        own.restype = ctypes.c_void_p
        own(*map(pointer, (again, x, z)))
        np.testing.assert_array_equal(again, y)
    for wrong in ((13, 1, 2017), (321, 1, 2016), (321, 0.5, 2017), (np.nan, 1, 2017)):
        columns, y = np.array(wrong, dtype=np.float64), np.full(2, 7, np.float32)
        assert library.many_choose(pointer(columns)) == -1
        assert library.many(*map(pointer, (y, x, z, columns))) is None
        assert (y == 7).all()
    program = compiled(source, tmp_path / "test", "-DPIDGAN_SELF_TEST")
    tested = subprocess.run([program], capture_output=True, text=True)
    assert tested.returncode == 0
    assert tested.stdout.count("at most") == 24


def test_ranges_choose_as_in_apply(tmp_path: Path) -> None:
    bundles = write_bundles(tmp_path / "bundles", species=(321,), years=(2017,))
    first, second, third, _ = bundles.values()
    path = write_collection(
        tmp_path / "runs.toml",
        {"run": "runNumber", "block": "B"},
        [
            (first, "run = [[-5, 1499], 1777], block = 1"),
            (second, "run = [[1500, 1776], [1778, 2999]], block = [1, 2]"),
            (third, "run = [3000, 3002]"),
        ],
    )
    opened = Collection.open(path)
    source = export_collection_c(opened, tmp_path / "runs.c", name="any")
    library = ctypes.CDLL(str(compiled(source, tmp_path / "r.so", "-shared", "-fPIC")))
    choice = opened.content.choice().without("species")
    runs = (-6, -5, 0, 1499, 1500, 1776, 1777, 1778, 2999, 3000, 3001, 3002, 3003)
    for run, block in itertools.product(runs, (0, 1, 2, 3)):
        columns = np.array([run, block], dtype=np.float64)
        expected = choice.find({"run": columns[:1], "block": columns[1:]})
        assert library.any_choose(pointer(columns)) == expected[0]


def test_names_that_c_does_not_know(tmp_path: Path) -> None:
    write_bundles(tmp_path / "bundles", species=(321,), years=(2017,))
    opened = collect([tmp_path / "bundles"], tmp_path / "many.toml")
    for name in ("for", "1x", "floor", "a-b"):
        with pytest.raises(BundleError, match="no name for a C function"):
            collection_source(opened, name)
    with pytest.raises(BundleError, match=r"ends in .c"):
        export_collection_c(opened, tmp_path / "many.cpp")
