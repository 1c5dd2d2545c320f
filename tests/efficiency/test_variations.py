"""Variations of a map: an uncertainty may have a covariance of any rank."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_map import draw_rows, make_map

from pidgan.efficiency.pid_efficiency import combine
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.variation_parts import parts_of_variations
from pidgan.efficiency.variations import shifts_of, with_variation
from pidgan.errors import MapError


def covariance(seed: int, n: int, rank: int) -> np.ndarray:
    factors = np.random.default_rng(seed).normal(size=(rank, n))
    return 1e-4 * factors.T @ factors


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_shifts_have_the_covariance(rank: int) -> None:
    wanted = covariance(rank, 6, rank)
    shifts = shifts_of(wanted)
    assert len(shifts) == rank
    np.testing.assert_allclose(shifts.T @ shifts, wanted, atol=1e-9)


def test_no_covariance_is_one_shift_of_zero() -> None:
    assert shifts_of(np.zeros((4, 4))).tolist() == [[0.0] * 4]


def test_a_covariance_is_one_part_of_the_uncertainty() -> None:
    known = make_map()
    wanted = covariance(1, 6, 3)
    more = with_variation(known, "control", shifts_of(wanted).reshape(-1, 2, 3))
    assert list(parts_of_variations(more.variations)) == ["binning", "control"]
    np.testing.assert_allclose(
        more.error**2, known.error**2 + np.diag(wanted).reshape(2, 3), atol=1e-9
    )
    drawn = draw_rows(1, 5000)
    place = drawn.tracks["a"].place
    rows = replace(
        drawn, tracks={"a": drawn.tracks["a"]}, cell=np.zeros(len(place), np.int64)
    )
    selections = [Selection(text=more.cuts[k], cuts={"a": k}) for k in range(2)]
    found = combine(selections, rows, {"a": more})
    w = np.bincount(place, rows.weights, minlength=3)
    f = np.kron(np.eye(2), w / w.sum())
    np.testing.assert_allclose(
        found.covariances["control"], f @ wanted @ f.T, atol=1e-9
    )
    assert "control" in found.text()
    assert "control#" not in found.text()


def test_a_map_with_a_covariance_is_stored(tmp_path: Path) -> None:
    shifts = shifts_of(covariance(2, 6, 2)).reshape(-1, 2, 3)
    given = with_variation(make_map(), "control", shifts)
    given = given.open(given.save(tmp_path / "map.json")[0])
    assert list(given.variations) == ["binning", "control", "control#2"]
    np.testing.assert_array_equal(given.variations["control#2"], shifts[1])


def test_a_name_is_used_once() -> None:
    known = make_map()
    with pytest.raises(MapError, match="has a variation 'binning' already"):
        with_variation(known, "binning", np.zeros((2, 3)))
    with pytest.raises(ValueError, match="expected letters"):
        with_variation(known, "a#2", np.zeros((2, 3)))
    for wrong in (np.zeros((3, 2)), np.full((2, 3), np.nan), np.zeros(3)):
        with pytest.raises(ValueError, match="expected finite"):
            with_variation(known, "more", wrong)
