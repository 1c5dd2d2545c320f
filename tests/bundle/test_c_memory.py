"""Large graphs in C: memory of the caller, parts of functions, few rows, the header."""

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from test_c_file import STRICT, Compiled, compiled, needs_compiler
from toy_generator import make_card, toy_onnx, with_self_test

from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.c_file import BLOCK_ROWS, LARGE_BLOCK_ROWS, c_source, export_c

CXX = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    path = tmp_path / "toy.onnx"
    path.write_bytes(toy_onnx(with_self_test(make_card(), n=64)))
    return open_bundle(path)


def draws(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.uniform((3e3, 1.5), (1e5, 5), (n, 2)).astype(np.float32)
    return x, rng.standard_normal((n, 3)).astype(np.float32)


class Large(Compiled):
    """The functions of a file whose arrays are in memory of the caller."""

    @property
    def size(self) -> int:
        return ctypes.c_size_t.in_dll(self.library, "generator_scratch").value

    def in_memory(self, x: np.ndarray, z: np.ndarray, *, one: bool) -> np.ndarray:
        """Results with memory whose bytes before and after must stay."""
        memory = np.full(self.size + 192, 77, np.uint8)
        first = 64 + -memory.ctypes.data % 64
        y = np.empty((len(x), self.n_targets), np.float32)
        scratch = ctypes.c_void_p(memory[first:].ctypes.data)
        if one:
            for row in zip(y, x, z, strict=True):
                pointers = (ctypes.c_void_p(a.ctypes.data) for a in row)
                self.library.generator_row_in(*pointers, scratch)
        else:
            pointers = (ctypes.c_void_p(a.ctypes.data) for a in (y, x, z))
            count = ctypes.c_size_t(len(x))
            self.library.generator_batch_in(*pointers, count, scratch)
        assert (memory[:first] == 77).all()
        assert (memory[first + self.size :] == 77).all()
        return y


@needs_compiler
@pytest.mark.parametrize("stack", [0, 2**20])
def test_large_and_small_files_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: int
) -> None:
    kaon = open_bundle("demo-kaon")
    low, high = np.transpose([v.range for v in kaon.card.conditions])
    rng = np.random.default_rng(4)
    small = Compiled(kaon, tmp_path / "small")
    monkeypatch.setattr("pidgan.bundle.c_file.MAX_STACK", stack)
    monkeypatch.setattr("pidgan.bundle.c_graph.MOST_LINES", 100)
    monkeypatch.setattr("pidgan.bundle.c_graph.PART_LINES", 50)
    source = c_source(kaon, "generator")
    assert "block_1(" in source
    assert "row_1(" in source
    rows = BLOCK_ROWS if stack else LARGE_BLOCK_ROWS
    assert f"ROWS = {rows}," in source
    assert ("malloc" in source) == (stack == 0)
    large = Large(kaon, tmp_path / "large")
    for n in (1, 3, 5, 8, 9, 33, 200):
        x = rng.uniform(low, high, (n, len(low))).astype(np.float32)
        z = rng.standard_normal((n, kaon.card.n_noise)).astype(np.float32)
        x[n // 2, 1] = np.nan
        expected = small.batch(x, z)
        found = [large.batch(x, z), large.rows(x, z), small.rows(x, z)]
        if stack == 0:
            found += [large.in_memory(x, z, one=one) for one in (False, True)]
        for y in found:
            np.testing.assert_array_equal(y, expected)


@needs_compiler
def test_threads_have_memory_of_their_own(
    toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pidgan.bundle.c_file.MAX_STACK", 0)
    large = Large(toy, tmp_path / "large")
    x, z = draws(500)
    expected = large.batch(x, z)
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(large.in_memory, x, z, one=bool(k % 2)) for k in range(20)]
        for task in tasks:
            np.testing.assert_array_equal(task.result(), expected)


@needs_compiler
def test_self_test_of_a_large_file(
    toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pidgan.bundle.c_file.MAX_STACK", 0)
    source = c_source(toy, "toy")
    program = compiled(source, tmp_path / "test", *STRICT, "-DPIDGAN_SELF_TEST")
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@needs_compiler
@pytest.mark.skipif(CXX is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("stack", [0, 2**20])
def test_the_header_is_for_c_and_for_cpp(
    toy: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: int
) -> None:
    monkeypatch.setattr("pidgan.bundle.c_file.MAX_STACK", stack)
    path = export_c(toy, tmp_path / "toy.c")
    # The header agrees with the definitions.
    source = f'#include "toy.h"\n{path.read_text()}'
    compiled(source, tmp_path / "both.o", *STRICT, "-c", f"-I{tmp_path}")
    used = "toy_batch_in(y, x, z, 1, memory)" if stack == 0 else "toy_batch(y, x, z, 1)"
    program = f"""
    #include "toy.h"
    #include <cmath>
    #include <vector>
    int main()
    {{
        std::vector<double> memory_of(2000000);
        void *memory = memory_of.data();
        (void)memory;
        float x[2] = {{2e4f, 3}}, z[3] = {{}}, y[9] = {{}};
        {used};
        return !(toy_n_conditions == 2 && toy_n_noise == 3 && std::isfinite(y[0]));
    }}
    """
    (tmp_path / "main.cpp").write_text(program)
    compiled(path.read_text(), tmp_path / "toy.o", *STRICT, "-c")
    files = ["main.cpp", "toy.o", "-o", "main", "-lm"]
    command = [str(CXX), "-Wall", "-Wextra", "-Werror", *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([str(tmp_path / "main")]).returncode == 0


def test_c_file_and_header_are_written_together(toy: Bundle, tmp_path: Path) -> None:
    export_c(toy, tmp_path / "toy.c")
    old = (tmp_path / "toy.h").read_text()
    export_c(toy, tmp_path / "toy.c", name="other", overwrite=True)
    new = (tmp_path / "toy.h").read_text()
    assert "toy_batch(" in old
    assert "other_batch(" in new
    assert "toy_batch(" not in new
