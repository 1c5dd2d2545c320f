"""Work ahead: order is kept, errors arrive, threads end."""

import threading
from collections.abc import Iterator

import pytest

from pidgan.files.copying import ahead


def test_order_is_kept() -> None:
    with ahead(range(100)) as first, ahead(map(str, first)) as second:
        assert list(second) == [str(i) for i in range(100)]


def test_nothing_comes_of_nothing() -> None:
    with ahead([]) as items:
        assert list(items) == []


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    with ahead(items()) as numbers:
        assert next(numbers) == 1
        assert next(numbers) == 2
        with pytest.raises(KeyError, match="third"):
            next(numbers)


def test_the_thread_ends_with_the_block() -> None:
    before = threading.active_count()
    made = []

    def items() -> Iterator[int]:
        for i in range(10**6):
            made.append(i)
            yield i

    with ahead(items()) as numbers, ahead(map(float, numbers)) as floats:
        assert next(floats) == 0.0
    assert threading.active_count() == before
    assert len(made) < 10


def test_the_next_item_is_made_meanwhile() -> None:
    made = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for i, event in enumerate(made):
            event.set()
            yield i

    with ahead(items()) as numbers:
        for i in numbers:
            assert made[min(i + 1, 3)].wait(timeout=60)
