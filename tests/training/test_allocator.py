"""A training keeps its memory, and gives it back at the end."""

import ctypes

import pytest

from pidgan.training.allocator import CHOICES, _glibc, kept_memory

SIZE = 2**29  # nobody writes to it
LIBRARY = _glibc()
pytestmark = pytest.mark.skipif(
    not hasattr(LIBRARY, "mallinfo2"), reason="the C library is not glibc 2.33 or newer"
)


class Memory(ctypes.Structure):
    """What the allocator says of itself (mallinfo2 of malloc.h)."""

    _fields_ = [
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]


def a_large_block() -> tuple[bool, bool]:
    """Return whether a block came from the system, and whether it stays when free."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = Memory
    library.malloc.restype = ctypes.c_void_p
    before = library.mallinfo2().hblks
    block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(SIZE)))
    alone = library.mallinfo2().hblks > before
    library.free(block)
    return alone, library.mallinfo2().fordblks >= SIZE


def test_large_blocks_are_kept_while_it_lasts() -> None:
    assert a_large_block() == (True, False)
    with kept_memory():
        assert a_large_block() == (False, True)
    assert a_large_block() == (True, False)


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_of_the_user_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with kept_memory():
        assert a_large_block() == (True, False)
