"""A training keeps its memory, and gives it back at the end."""

import ctypes
import resource

import pytest

from pidgan.training.allocator import CHOICES, _glibc, kept_memory

SIZE, TIMES = 2**26, 4
pytestmark = pytest.mark.skipif(_glibc() is None, reason="the C library is not glibc")


def faults() -> int:
    """Return the pages that the system cleared for some large blocks in turn."""
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(SIZE)))
        ctypes.memset(block, 1, SIZE)
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_large_blocks_are_kept_while_it_lasts() -> None:
    usual = faults()
    with kept_memory():
        faults()
        assert faults() < usual / 4
    assert faults() > usual / 2


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_of_the_user_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with kept_memory():
        faults()
        assert faults() > SIZE / 4096 / 512  # pages of 4 kB or of 2 MB
