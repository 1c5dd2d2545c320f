"""A generator simple enough to know exactly, as an object and as an ONNX file."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pidgan.bundle.bundle_file import CARD_KEY, seal
from pidgan.bundle.card import Card, CardVariable
from pidgan.sample.definition import Sample

P_RANGE, ETA_RANGE = (3000.0, 100_000.0), (1.5, 5.0)


def make_sample(**changes: Any) -> Sample:
    content: dict[str, Any] = {
        "schema": 1,
        "name": "toy",
        "title": "Toy kaons",
        "detector": "toy",
        "species": "K+",
        "source": "none",
        "unweighted": True,
        "conditions": [
            {"name": "P", "unit": "MeV", "range": P_RANGE, "transform": "log"},
            {"name": "ETA", "range": ETA_RANGE},
        ],
        "targets": [
            {"name": "DLLk", "range": [-200, 200], "sentinels": [-999.0]},
            {"name": "DLLp", "range": [-200, 200]},
        ],
        "binning": {"P": (3000, 10_000, 30_000, 100_000), "ETA": (1.5, 3.0, 5.0)},
        "cuts": ["DLLk > 0"],
    }
    return Sample.model_validate(content | changes)


def make_card(**changes: Any) -> Card:
    content: dict[str, Any] = {
        "detector": "toy",
        "species": "K+",
        "conditions": (
            CardVariable(name="P", unit="MeV", range=P_RANGE, patterns=("{track}_P",)),
            CardVariable(
                name="ETA", unit="1", range=ETA_RANGE, patterns=("{track}_ETA",)
            ),
        ),
        "targets": (
            CardVariable(name="DLLk", unit="1", range=(-200, 200), sentinels=(-999.0,)),
            CardVariable(name="DLLp", unit="1", range=(-200, 200)),
        ),
        "n_noise": 3,
        "sample": make_sample(),
        "family": "toy",
        "seed": 1,
        "steps": 0,
    }
    return Card.model_validate(content | changes)


def location(conditions: np.ndarray) -> np.ndarray:
    """Mean of both targets, which have unit width."""
    p, eta = np.asarray(conditions, dtype=np.float64)[:, :2].T
    first = 4.0 - 5e-5 * p + 0.3 * (eta - 3.0)
    second = 1.0 + 2e-5 * p
    return np.stack([first, second], axis=1)


@dataclass(frozen=True, kw_only=True)
class ToyGenerator:
    """y = location(x) + (z_0, (z_0 + z_1) / sqrt 2) + offset."""

    card: Card
    offset: float = 0.0

    def generate(self, conditions: np.ndarray, noise: np.ndarray) -> np.ndarray:
        z = np.asarray(noise, dtype=np.float64)
        spread = np.stack([z[:, 0], (z[:, 0] + z[:, 1]) / np.sqrt(2)], axis=1)
        return (location(conditions) + spread + self.offset).astype(np.float32)


def toy_onnx(card: Card | None, **changes: Any) -> bytes:
    """The same generator as an ONNX file; `changes` break it in one place."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    slope = np.array([[-5e-5, 2e-5], [0.3, 0.0]], dtype=np.float32)
    start = np.array([4.0 - 0.9, 1.0], dtype=np.float32) + np.float32(
        changes.get("offset", 0)
    )
    root = np.sqrt(0.5)
    mixing = np.array([[1.0, root], [0.0, root], [0.0, 0.0]], dtype=np.float32)
    arrays = {"slope": slope, "start": start, "mixing": mixing}
    initializers = [numpy_helper.from_array(v, k) for k, v in arrays.items()]
    nodes = [
        helper.make_node("Gemm", ["conditions", "slope", "start"], ["centre"]),
        helper.make_node("MatMul", ["noise", "mixing"], ["spread"]),
        helper.make_node(
            "Add", ["centre", "spread"], [changes.get("output", "targets")]
        ),
    ]
    if changes.get("custom_operator"):
        nodes[2].domain = "com.microsoft"
    shapes = {"conditions": ["n", 2], "noise": ["n", 3], "targets": ["n", 2]}
    shapes |= changes.get("shapes", {})

    def port(name: str, shape_of: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[shape_of])

    graph = helper.make_graph(
        nodes,
        "toy",
        [port("conditions", "conditions"), port("noise", "noise")],
        [port(changes.get("output", "targets"), "targets")],
        initializers,
    )
    if changes.get("external"):
        tensor = graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/hostname")
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    if card is not None:
        text = changes.get("card_text", card.to_json())
        onnx.helper.set_model_props(model, {CARD_KEY: text})
        return seal(model.SerializeToString())
    return model.SerializeToString()


def with_self_test(card: Card, n: int = 256, *, offset: float = 0.0) -> Card:
    """The card with stored conditions, noise and targets."""
    rng = np.random.default_rng(5)
    low, high = np.array([v.range for v in card.conditions]).T
    x = rng.uniform(low, high, (n, len(low))).astype(np.float32)
    z = rng.standard_normal((n, card.n_noise)).astype(np.float32)
    y = ToyGenerator(card=card, offset=offset).generate(x, z)
    test = {"conditions": x.tolist(), "noise": z.tolist(), "targets": y.tolist()}
    return card.model_copy(update={"self_test": test})


def unsealed(data: bytes) -> bytes:
    """The file without the checksum at its end: 2 + 81 bytes."""
    assert data[-81:].startswith(b"\n\rpidgan_sha256")
    return data[:-83]


def resealed(data: bytes) -> bytes:
    """The file with a checksum of what it holds now."""
    return seal(unsealed(data))
