"""Laws of the errors that two cuts of an efficiency map have in common."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.estimates import map_covariance
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.efficiency.systematics import map_from_rows

EDGES = {"P": (0.0, 1.0, 2.0, 3.0, 4.0), "ETA": (0.0, 1.0, 2.0)}
CUTS = ("y > 0", "y > 0.1", "y < 0")


@pytest.fixture(scope="module")
def found() -> EfficiencyMap:
    rng = np.random.default_rng(3)
    n = 4000
    x = {"P": rng.uniform(0, 4, n), "ETA": rng.uniform(0, 2, n)}
    # Few rows lie in the first bins, so that the model of the smoothing matters there.
    x["P"] = np.where(rng.random(n) < 0.6, 3.5, x["P"])
    y = rng.standard_normal(n) + 0.3 * x["P"]
    made = rng.standard_normal((4, n)) + 0.3 * x["P"] - 0.1

    def passed(values: Any) -> Any:
        return np.array([values > 0, values > 0.1, values < 0])

    rows = ComparedRows(
        species="K+",
        cuts=CUTS,
        columns=x,
        weights=rng.normal(1.0, 0.5, n),
        real=passed(y),
        generated=passed(made).sum(axis=1),
        repeats=4,
    )
    return map_from_rows(
        rows,
        edges=EDGES,
        empty_bins=lambda bins: np.full((3, len(bins)), 0.5),
        metadata={
            "species": "K+",
            "detector": "toy",
            "conditions": [{"name": name, "unit": "1"} for name in EDGES],
            "targets": [{"name": "y"}],
        },
    )


def test_a_cut_and_its_opposite_are_wrong_by_the_same_amount(
    found: EfficiencyMap,
) -> None:
    opposite = found.joint_covariance(0, 2)
    assert np.allclose(opposite, -found.covariance[0], rtol=2e-3, atol=1e-9)
    # So that the error of their sum, which is 1, vanishes.
    sums = np.concatenate([np.eye(8), np.zeros((8, 8)), np.eye(8)], axis=1)
    errors = np.sqrt(np.abs(np.diag(map_covariance(found, sums))))
    assert (errors < 0.05 * np.sqrt(np.diag(found.covariance[0]))).all()


def test_similar_cuts_are_wrong_together_more_than_their_rows_say(
    found: EfficiencyMap,
) -> None:
    rows = found.operator[0] * found.raw_covariance[0, 1] @ found.operator[1].T
    joint = found.joint_covariance(0, 1)
    assert (np.diag(joint) > np.diag(rows)).all()
    both = np.sqrt(np.diag(found.covariance[0]) * np.diag(found.covariance[1]))
    assert (np.diag(joint) < both).all()
    assert (np.diag(joint) > 0.6 * both).all()


def test_the_covariance_of_all_cuts_is_one(found: EfficiencyMap) -> None:
    everything = map_covariance(found, np.eye(24))
    blocks = [[found.joint_covariance(i, j) for j in range(3)] for i in range(3)]
    assert np.allclose(everything, np.block(blocks), atol=1e-15)
    assert np.linalg.eigvalsh(everything).min() > -1e-12 * np.trace(everything)
    shares = np.arange(8) / 28
    wide = np.kron(np.eye(3), shares)
    assert np.allclose(found.propagate(shares), map_covariance(found, wide))


def test_a_file_keeps_them_and_an_older_one_has_none(
    found: EfficiencyMap, tmp_path: Path
) -> None:
    found.save(tmp_path / "map.json")
    opened = EfficiencyMap.open(tmp_path / "map.json")
    assert opened.common is not None
    assert found.common is not None
    for name, array in vars(found.common).items():
        assert np.array_equal(getattr(opened.common, name), array)
    assert np.array_equal(opened.joint_covariance(0, 1), found.joint_covariance(0, 1))
    old = EfficiencyMap.open("demo-kaon")
    assert old.common is None or len(old.common.scale) == len(old.cuts)


def test_damaged_ones_are_refused(found: EfficiencyMap) -> None:
    assert found.common is not None
    with pytest.raises(ValueError, match=r"common_scale: shape \(3, 8\), expected"):
        found.common.check(3, (4, 3))
    with pytest.raises(ValueError, match="common_amplitudes"):
        found.common.check(2, (4, 2))
