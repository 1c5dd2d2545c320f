"""The exported file is the model: same numbers, same card, whole or not at all."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

pytest.importorskip("tensorflow")

from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.card import sample_targets
from pidgan.errors import BundleError, NtupleError
from pidgan.training.export import (
    TOLERANCE,
    build_graph,
    check_parity,
    export_bundle,
)


def test_onnx_equals_keras(kaon_model, kaon_bundle: Path) -> None:
    found = check_parity(kaon_model, open_bundle(kaon_bundle), rows=10_000)
    assert found.rows == 10_000
    assert found.differing <= 1
    assert found.largest <= TOLERANCE


def test_another_implementation_of_onnx_agrees(kaon_bundle: Path) -> None:
    """The reference implementation reads the standard to the letter."""
    bundle = open_bundle(kaon_bundle)
    x = bundle.reference()[list(bundle.card.condition_names)].to_numpy(np.float32)[:500]
    z = np.random.default_rng(1).normal(size=(len(x), bundle.card.n_noise))
    inputs = {"conditions": x, "noise": z.astype(np.float32)}
    (found,) = ReferenceEvaluator(str(kaon_bundle)).run(None, inputs)
    np.testing.assert_allclose(
        found, bundle.generate(*inputs.values()), rtol=1e-4, atol=1e-4
    )


def test_only_standard_operators(kaon_model) -> None:
    graph = build_graph(kaon_model)
    assert {node.domain for node in graph.graph.node} == {""}
    assert [entry.domain for entry in graph.opset_import] == [""]


def test_ties_are_exact_in_onnx(kaon_bundle: Path) -> None:
    bundle = open_bundle(kaon_bundle)
    frame = bundle.reference()
    names = list(bundle.card.condition_names)
    y = sample_targets(bundle, frame[names].to_numpy()[:4000], seed=1)
    k, bt = (y[:, bundle.card.target_names.index(f"RichDLL{h}")] for h in ("k", "bt"))
    assert (k == bt).any()
    assert np.abs(k - bt)[k != bt].min() > 1e-6


def test_card_and_reference(kaon_model, kaon_bundle: Path) -> None:
    card = open_bundle(kaon_bundle).card
    assert card.species == "K+"
    assert card.condition_names == ("P", "ETA", "nTracks")
    assert card.reference["rows"] == len(kaon_model.reference())
    assert card.steps == kaon_model.card.steps
    assert card.versions["keras"]


def test_existing_files_stay(kaon_model, kaon_bundle: Path, tmp_path: Path) -> None:
    before = kaon_bundle.read_bytes()
    with pytest.raises(NtupleError, match="exists; choose another name"):
        export_bundle(kaon_model, kaon_bundle)
    assert kaon_bundle.read_bytes() == before
    with pytest.raises(BundleError, match=r"ends in \.onnx"):
        export_bundle(kaon_model, tmp_path / "kaon.bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_disagrees_is_never_written(
    kaon_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model, **_: bool) -> onnx.ModelProto:
        graph = build_graph(model)
        # The last constant that is a table of knots: shift it.
        for tensor in graph.graph.initializer:
            if tensor.dims == [model.targets.knots.size]:
                values = onnx.numpy_helper.to_array(tensor) + 1
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return graph

    monkeypatch.setattr("pidgan.training.export.build_graph", broken)
    with pytest.raises(BundleError):
        export_bundle(kaon_model, tmp_path / "kaon.onnx")
    assert list(tmp_path.iterdir()) == []
