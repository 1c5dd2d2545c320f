"""A model repository says of a bundle what Triton has to know."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run, one_line
from toy_collection import write_bundles

import pidgan
from pidgan.bundle.collecting import collect
from pidgan.bundle.noise import column_keys, entry_keys, keyed_normal
from pidgan.bundle.triton import export_triton, triton_config


def read_config(path: Path) -> Any:
    """Read a configuration as Triton does."""
    protocol = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    return text_format.Parse(path.read_text(), protocol.ModelConfig())


def test_config_is_that_of_the_graph(tmp_path: Path) -> None:
    import onnxruntime

    config, model = export_triton("demo-kaon", tmp_path / "models")
    assert model == tmp_path / "models/demo-kaon/1/model.onnx"
    found = read_config(config)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for ports, listed in (
        (session.get_inputs(), found.input),
        (session.get_outputs(), found.output),
    ):
        assert [p.name for p in ports] == [entry.name for entry in listed]
        for port, entry in zip(ports, listed, strict=True):
            # With a batch, the first dimension is not named.
            assert port.shape[1:] == list(entry.dims)
            assert not isinstance(port.shape[0], int)
            assert port.type == "tensor(float)"
            assert (
                found.DESCRIPTOR.file.enum_types_by_name["DataType"]
                .values_by_number[entry.data_type]
                .name
                == "TYPE_FP32"
            )
    assert found.name == "demo-kaon"
    assert found.platform == "onnxruntime_onnx"
    assert found.backend == "onnxruntime"
    assert found.max_batch_size == 65536
    assert list(found.dynamic_batching.preferred_batch_size) == [2048]
    assert found.HasField("version_policy")
    # The graph computes such a batch, and what the bundle gives to rounding.
    bundle = pidgan.open_bundle("demo-kaon")
    test = {k: np.asarray(v, np.float32) for k, v in bundle.card.self_test.items()}
    feed = {name: test[name] for name in ("conditions", "noise")}
    (targets,) = session.run(["targets"], feed)
    assert np.median(np.abs(targets - test["targets"])) < 1e-4
    assert pidgan.open_bundle(model).sha256 == bundle.sha256


def test_versions_stand_beside_each_other(tmp_path: Path) -> None:
    models = tmp_path / "models"
    export_triton("demo-kaon", models)
    with pytest.raises(pidgan.PidganError, match=r"1/model.onnx exists"):
        export_triton("demo-kaon", models)
    export_triton("demo-kaon", models, overwrite=True)
    export_triton("demo-kaon", models, model_version=2)
    assert sorted(p.name for p in (models / "demo-kaon").iterdir()) == [
        *("1", "2", "config.pbtxt")
    ]
    write_bundles(tmp_path / "b", years=[2017], species=[321])
    other = next((tmp_path / "b").glob("*.onnx"))
    with pytest.raises(pidgan.PidganError, match="same inputs and outputs"):
        export_triton(other, models, name="demo-kaon", model_version=3)
    assert not (models / "demo-kaon/3").exists()
    with pytest.raises(pidgan.PidganError, match="is no name of a model"):
        export_triton(other, models, name="a/b")


def test_a_collection_becomes_its_bundles(tmp_path: Path) -> None:
    write_bundles(tmp_path / "b", years=[2017])
    found = collect([str(tmp_path / "b")], tmp_path / "all.toml")
    export_triton(found, tmp_path / "models")
    stems = {path.stem for path in (tmp_path / "b").glob("*.onnx")}
    assert {path.name for path in (tmp_path / "models").iterdir()} == stems
    for stem in stems:
        bundle = pidgan.open_bundle(tmp_path / f"models/{stem}/1/model.onnx")
        config = (tmp_path / f"models/{stem}/config.pbtxt").read_text()
        assert config == triton_config(bundle, stem)


def test_command_line(tmp_path: Path, run: Run) -> None:
    words = ("export", "demo-kaon", "--format", "triton", "-o", tmp_path / "models")
    assert run(*words).code == 0
    one_line(run(*words), "exists")
    assert run(*words, "--model-version", 2).code == 0
    assert (tmp_path / "models/demo-kaon/2/model.onnx").is_file()
    found = run("export", "demo-kaon", "-o", tmp_path / "a.c", "--model-version", 2)
    assert found.code == 2
    assert "needs --format triton" in found.err


MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    z ^= z >> 30
    z = z * 0xBF58476D1CE4E5B9 & MASK
    z ^= z >> 27
    z = z * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def digest(text: str) -> int:
    data = b"pidgan noise 1\0" + text.encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def test_noise_is_what_the_page_tells_other_languages() -> None:
    seed, track, n_noise = 7, "Kplus", 5
    keys = [
        mix(digest(f"entry\0{seed}\0{track}") + (i + 1) * GAMMA & MASK)
        for i in range(40)
    ]
    assert entry_keys(seed=seed, track=track, start=0, stop=40).tolist() == keys
    expected = []
    for key in keys:
        row = []
        for j in range(3):
            word = mix(mix(key) + (j + 1) * GAMMA & MASK)
            u, v = ((word >> 32) + 0.5) / 2**32, (word & 2**32 - 1) / 2**32
            radius = math.sqrt(-2 * math.log(u))
            row += [
                radius * math.cos(2 * math.pi * v),
                radius * math.sin(2 * math.pi * v),
            ]
        expected.append(row[:n_noise])
    found = keyed_normal(np.array(keys, dtype=np.uint64), n_noise=n_noise)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_keys_of_columns_are_what_the_page_tells_other_languages() -> None:
    columns = [np.array([5, 2**40, -3]), np.array([1.5, 3.0, -0.0])]
    words = [[5, 2**40, MASK - 2], [np.float64(1.5).view(np.uint64).item(), 3, 0]]
    keys = []
    for row in range(3):
        key = digest("columns\09\0" + "2")
        for column in words:
            key = key + GAMMA & MASK
            key = mix(key ^ mix(column[row]))
        keys.append(key)
    assert column_keys(columns, seed=9).tolist() == keys
