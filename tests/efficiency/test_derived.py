"""A map for a cut on a function of targets corrects it as that of a target."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toy_generator import ToyGenerator, make_card

from pidgan.efficiency.derived import derive_target
from pidgan.efficiency.systematics import run_systematics
from pidgan.errors import BundleError, MapError

KAON = ToyGenerator(card=make_card())
OWN: dict[str, Any] = {"binning": {"P": 3}, "repeats": 2, "progress": False}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n, card = 2000, KAON.card
    x = pd.DataFrame({"P": rng.uniform(3.1e3, 9.9e4, n), "ETA": rng.uniform(2, 4.9, n)})
    noise = rng.standard_normal((n, card.n_noise)).astype(np.float32)
    y = KAON.generate(x[list(card.condition_names)].to_numpy(np.float32), noise)
    named = dict(zip(card.target_names, y.T.astype(np.float64), strict=True))
    return x.assign(**named, weight=1.0)


def test_a_function_is_cut_as_its_target(rows: pd.DataFrame) -> None:
    twice = derive_target(
        KAON, "score", lambda frame: 2 * frame["DLLk"] + 1, reference=rows
    )
    plain = run_systematics(KAON, rows, cuts="DLLk > 2", **OWN)
    found = run_systematics(twice, cuts="score > 5", **OWN)
    assert np.array_equal(found.generated, plain.generated)
    assert np.array_equal(found.discrepancy, plain.discrepancy)
    assert found.cuts == ("score > 5",)
    assert found.metadata["bundle_sha256"] == plain.metadata["bundle_sha256"]


def test_a_column_of_the_reference_is_the_real_value(rows: pd.DataFrame) -> None:
    given = rows.assign(score=np.where(rows["DLLk"] > 0, 1.0, -1.0))
    derived = derive_target(KAON, "score", lambda f: f["DLLk"], reference=given)
    found = run_systematics(derived, cuts="score > 0", **OWN)
    plain = run_systematics(KAON, rows, cuts="DLLk > 0", **OWN)
    assert np.array_equal(found.discrepancy, plain.discrepancy)


def test_an_onnx_file_is_a_function(rows: pd.DataFrame, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.TensorProto.FLOAT
    x = helper.make_tensor_value_info("x", numbers, [None, 2])
    y = helper.make_tensor_value_info("y", numbers, [None, 1])
    weights = helper.make_tensor("w", numbers, [2, 1], [0.0, 3.0])
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "bdt", [x], [y], [weights])
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "bdt.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    inputs = ["P", "DLLk"]
    derived = derive_target(KAON, "bdt", path, inputs=inputs, reference=rows)
    found = run_systematics(derived, cuts="bdt > 6", **OWN)
    plain = run_systematics(KAON, rows, cuts="DLLk > 2", **OWN)
    assert np.allclose(found.generated, plain.generated, atol=1e-3)
    with pytest.raises(ValueError, match="inputs is missing"):
        derive_target(KAON, "bdt", path)
    path.write_bytes(b"no graph")
    with pytest.raises(BundleError, match="cannot load the graph"):
        derive_target(KAON, "bdt", path, inputs=inputs)
    with pytest.raises(BundleError, match="cannot be read"):
        derive_target(KAON, "bdt", tmp_path / "none.onnx", inputs=inputs)


def test_what_is_wrong_is_said(rows: pd.DataFrame) -> None:
    with pytest.raises(MapError, match="name is 'DLLk', expected a new name"):
        derive_target(KAON, "DLLk", lambda f: f["DLLk"])
    with pytest.raises(MapError, match="inputs has 'DLLK', no variable; closest"):
        derive_target(KAON, "bdt", "bdt.onnx", inputs=["DLLK"])
    wrong = derive_target(KAON, "bdt", lambda f: f[["DLLk"]], reference=rows)
    with pytest.raises(MapError, match="expected \\(2000,\\)"):
        run_systematics(wrong, cuts="bdt > 0", **OWN)
    lost = derive_target(KAON, "bdt", lambda f: f["DLLk"] * np.nan, reference=rows)
    with pytest.raises(MapError, match="2000 of 2000 values are not finite"):
        run_systematics(lost, cuts="bdt > 0", **OWN)
