"""An efficiency map that is known exactly, and rows of an analysis to go with it."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from toy_generator import make_card

from pidgan.efficiency.analysis_rows import Rows, TrackRows
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.pid_efficiency import PidEfficiencies, combine
from pidgan.efficiency.selections import Selection

CUTS = ("DLLk > 0", "DLLk > 5")
EDGES = (3e3, 1e4, 3e4, 1e5)
GENERATED = np.array([[0.9, 0.8, 0.65], [0.7, 0.55, 0.4]])
DISCREPANCY = np.array([[-0.03, 0.02, 0.04], [-0.02, 0.03, -0.03]])
TRUTH = GENERATED + DISCREPANCY

SHARES = np.array([0.5, 0.3, 0.2])
SAME_BIN = 0.5  # how often the second track shares the bin of the first
IN_SECOND_CELL = np.array([0.2, 0.5, 0.8])


def make_map(*, seed: int | None = None, **changes: Any) -> EfficiencyMap:
    """The map with the true discrepancy, or with one drawn from its covariance."""
    card = json.loads(make_card().to_json())
    operator = np.stack([0.8 * np.eye(3) + 0.1, 0.7 * np.eye(3) + 0.1])
    sigma = np.array([[0.015, 0.02, 0.025], [0.02, 0.02, 0.03]])
    correlation = np.array([[1.0, 0.6], [0.6, 1.0]])
    raw = correlation[:, :, np.newaxis] * sigma[:, np.newaxis] * sigma
    covariance = np.array([(a * raw[i, i]) @ a.T for i, a in enumerate(operator)])
    fields: dict[str, Any] = {
        "cuts": CUTS,
        "binning": {"P": EDGES},
        "generated": GENERATED,
        "discrepancy": DISCREPANCY,
        "covariance": covariance + 0.005**2 * np.eye(3),
        "operator": operator,
        "raw_covariance": raw,
        "n_eff": np.full(3, 1e3),
        "passing": np.full(2, 1e3),
        "failing": np.full(2, 1e3),
        "variations": {"binning": np.array([[0.01, 0.0, -0.01], [0.0, 0.01, 0.01]])},
        "metadata": {
            "species": "K+",
            "pdgid": 321,
            "detector": "toy",
            "bundle_sha256": None,
            "conditions": card["conditions"],
            "targets": card["targets"],
        },
    }
    known = EfficiencyMap(**fields)
    if seed is not None:
        rng = np.random.default_rng(seed)
        joint = np.block(
            [[known.joint_covariance(i, j) for j in range(2)] for i in range(2)]
        )
        drawn = rng.multivariate_normal(DISCREPANCY.ravel(), joint).reshape(2, 3)
        for shift in known.variations.values():
            drawn += rng.standard_normal() * shift
        fields["discrepancy"] = drawn
    return EfficiencyMap(**(fields | changes))


def draw_rows(seed: int, n: int, *, weighted: bool = False) -> Rows:
    """Rows whose tracks have correlated conditions and independent responses."""
    rng = np.random.default_rng(seed)
    first = rng.choice(3, n, p=SHARES)
    other = rng.choice(3, n, p=SHARES)
    second = np.where(rng.random(n) < SAME_BIN, first, other)
    places = {"a": first, "b": second, "c": rng.choice(3, n, p=SHARES)}
    tracks = {}
    for name, place in places.items():
        u = rng.random(n)
        passed = {k: u < GENERATED[k][place] for k in range(2)}
        tracks[name] = TrackRows(place=place, passed=passed)
    cell = (rng.random(n) < IN_SECOND_CELL[first]).astype(np.int64)
    # Background that the negative weights subtract: it is like the signal here.
    weights = rng.choice([1.3, -0.5], n, p=[0.8, 0.2]) if weighted else np.ones(n)
    return Rows(tracks=tracks, weights=weights, cell=cell)


def combine_rows(
    efficiency_map: EfficiencyMap,
    numbers: Sequence[int],
    *,
    place: np.ndarray,
    passed: np.ndarray,
    weights: np.ndarray,
    **options: Any,
) -> PidEfficiencies:
    """Efficiencies of cuts of a map on one track, from arrays."""
    flags = dict(zip(numbers, passed, strict=True))
    rows = Rows(
        tracks={"track": TrackRows(place=place, passed=flags)},
        weights=weights,
        cell=np.zeros(len(place), dtype=np.int64),
    )
    selections = [
        Selection(text=efficiency_map.cuts[k], cuts={"track": k}) for k in numbers
    ]
    return combine(selections, rows, {"track": efficiency_map}, **options)
