"""Hashes of arrays: whatever changes in one of them changes the hash."""

import hashlib
from typing import Any

import numpy as np
import pytest

from pidgan.files.seals import add_arrays


def _hash(array: np.ndarray[Any, Any]) -> str:
    digest = hashlib.sha256()
    add_arrays(digest, {"a": array})
    return digest.hexdigest()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 3)])
def test_a_hash_is_that_of_name_type_shape_and_bytes(shape: tuple[int, ...]) -> None:
    array = np.full(shape, 7.0)
    text = f"a {array.dtype.str} {array.shape}".encode()
    assert _hash(array) == hashlib.sha256(text + array.tobytes()).hexdigest()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_another_value_is_another_hash(shape: tuple[int, ...]) -> None:
    assert _hash(np.full(shape, 1.0)) != _hash(np.full(shape, 2.0))
