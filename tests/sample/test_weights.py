"""Weights that say nothing are refused, and weights that say little are announced."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pidgan.efficiency.systematics import run_systematics
from pidgan.efficiency.table import efficiency_table
from pidgan.errors import DatasetError, PidganWarning
from pidgan.files.tables import write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.weights import check_weights, n_eff

GOLDEN = Path(__file__).parents[1] / "golden"
N = 2000


def with_one(value: float) -> NDArray[np.float64]:
    w = np.random.default_rng(1).normal(1.0, 0.5, N)
    w[17] = value
    return w


def test_one_row_that_carries_the_sample_is_refused() -> None:
    w = with_one(1e9)
    assert n_eff(w) == pytest.approx(1.000004, abs=1e-6)
    message = r"x: 2000 rows have .* of 1; row 17 with weight 1e\+09 holds 100"
    with pytest.raises(DatasetError, match=message):
        check_weights(w, "x")


def test_a_small_effective_size_warns() -> None:
    with pytest.warns(PidganWarning, match=r"row 17 with weight 1500 holds 99\.\d%"):
        check_weights(with_one(1500.0), "x")
    balanced = np.tile([1.0, -1.0], N)  # a sum of about one sigma of signal
    balanced[:60] = 1.0
    with pytest.warns(PidganWarning, match="effective size"):
        check_weights(balanced, "x")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "x: 1 of 2000 weights are not finite"),
        (-np.inf, "1 of 2000 weights are not finite"),
        (1e200, r"largest weight is 1e\+200, expected between"),
        (-1e300, r"largest weight is 1e\+300, expected between"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(value: float, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        check_weights(with_one(value), "x")
    with pytest.raises(DatasetError, match="largest weight is 1e-200"):
        check_weights(np.full(N, 1e-200), "x")


def test_usual_weights_pass_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in (1e-30, 1.0, 1e30):
            check_weights(with_one(3.0) * scale, "x")
        check_weights(np.array([5.0]), "x")
        check_weights(np.zeros(N), "x")  # its sum is for others to refuse
        check_weights(np.array([]), "x")


def test_every_stage_checks_its_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    columns = {
        "probe_P": rng.uniform(5e3, 9e4, N),
        "probe_ETA": rng.uniform(2, 4.9, N),
        "nTracks": rng.integers(20, 500, N),
        "probe_sWeight": with_one(1e9),
    }
    for name in ("PIDK", "PIDp"):
        columns[f"probe_{name}"] = rng.normal(0, 10, N)
    path = tmp_path / "calib.root"
    write_trees(path, {"DSt_KPTuple/DecayTree": columns})
    with pytest.raises(DatasetError, match=r"probe_sWeight: 2000 rows have an effect"):
        build_dataset("run2_dstar_k_combined", path)
    frame = {"P": columns["probe_P"], "PIDK": columns["probe_PIDK"]}
    with pytest.raises(DatasetError, match="weights of a table: 2000 rows have an eff"):
        efficiency_table(frame, "PIDK > 0", weights=with_one(1e9), binning={"P": 2})


def test_the_systematics_check_the_weights_of_the_reference() -> None:
    from pidgan.bundle.bundle import open_bundle

    bundle = open_bundle(GOLDEN / "kaon.onnx")
    frame = bundle.reference()
    assert frame is not None
    weights = frame["weight"].to_numpy().copy()
    weights[5] = 1e9
    cut = bundle.card.sample.cuts[0]
    with pytest.raises(DatasetError, match=r"weights of the reference: .*row 5 with"):
        run_systematics(bundle, frame.assign(weight=weights), cuts=[cut])
