"""The real client of the protocol, over HTTP and gRPC."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from asking import rows

import pidgan

pytest.importorskip("prometheus_client")
pytest.importorskip("tritonclient.grpc")
pytest.importorskip("tritonclient.http")

from pidgan.service.server import Addresses, serving

BUNDLE = pidgan.open_bundle("demo-kaon")


@pytest.fixture(scope="module")
def server() -> Iterator[Addresses]:
    with serving(["demo-kaon"], grpc_port=0, max_request=1) as found:
        yield found


def client(server: Addresses, kind: str) -> tuple[Any, Any]:
    """Return the library of a kind of client, and a client."""
    import tritonclient.grpc
    import tritonclient.http

    library = getattr(tritonclient, kind)
    where = server.grpc if kind == "grpc" else server.http.removeprefix("http://")
    return library, library.InferenceServerClient(where)


def tensor(library: Any, name: str, array: np.ndarray, **how: Any) -> Any:
    kinds = {"float32": "FP32", "uint64": "UINT64", "float64": "FP64"}
    found = library.InferInput(name, array.shape, kinds[str(array.dtype)])
    found.set_data_from_numpy(array, **how)
    return found


KINDS = pytest.mark.parametrize("kind", ["http", "grpc"])


@KINDS
def test_results_are_local_ones(server: Addresses, kind: str) -> None:
    library, asked = client(server, kind)
    x, keys = rows(5000), np.arange(5000, dtype=np.uint64)
    x[3, 0] = np.nan
    local = BUNDLE.generate_keyed(x, keys)
    inputs = [tensor(library, "conditions", x), tensor(library, "keys", keys)]
    reply = asked.infer("demo-kaon", inputs, model_version="1", request_id="7")
    np.testing.assert_array_equal(reply.as_numpy("targets"), local)
    status = reply.as_numpy("status")
    assert status[3] == 2
    seeded = asked.infer("demo-kaon", inputs[:1], parameters={"seed": 5, "track": "K"})
    frame = pidgan.open_bundle("demo-kaon").sample(
        {f"K_{n}": v for n, v in zip(("P", "ETA", "nTracks"), x.T, strict=True)},
        seed=5,
        track="K",
    )
    np.testing.assert_array_equal(status, frame.to_numpy()[:, -1])
    found = seeded.as_numpy("targets")
    np.testing.assert_array_equal(found, frame.to_numpy(np.float32)[:, :-1])


@KINDS
def test_what_a_client_asks_of_a_server(server: Addresses, kind: str) -> None:
    _, asked = client(server, kind)
    assert asked.is_server_live()
    assert asked.is_server_ready()
    assert asked.is_model_ready("demo-kaon", "1")
    as_json = {"as_json": True} if kind == "grpc" else {}
    metadata = asked.get_model_metadata("demo-kaon", **as_json)
    assert metadata["platform"] == "onnxruntime_onnx"
    assert [entry["name"] for entry in metadata["inputs"]] == ["conditions", "noise"]
    assert asked.get_server_metadata(**as_json)["name"] == "pidgan"
    asked.get_model_repository_index()


@KINDS
def test_errors_are_those_of_the_client(server: Addresses, kind: str) -> None:
    library, asked = client(server, kind)
    from tritonclient.utils import InferenceServerException

    x = rows(5)
    for inputs, message in (
        ([tensor(library, "conditions", x)], "expected one source of noise"),
        ([tensor(library, "noise", x)], "needs input 'conditions'"),
        ([tensor(library, "conditions", x.astype(float))], "has datatype FP64"),
        ([tensor(library, "conditions", rows(90_000))], "expected at most"),
    ):
        with pytest.raises(InferenceServerException, match=message):
            asked.infer("demo-kaon", inputs)
    with pytest.raises(InferenceServerException, match="no model 'kaon'"):
        asked.infer("kaon", [tensor(library, "conditions", x)])


def test_compressed_and_numbers_as_json(server: Addresses) -> None:
    library, asked = client(server, "http")
    x, keys = rows(50), np.arange(50, dtype=np.uint64)
    local = BUNDLE.generate_keyed(x, keys)
    inputs = [
        tensor(library, "conditions", x, binary_data=False),
        tensor(library, "keys", keys, binary_data=False),
    ]
    wanted = [library.InferRequestedOutput("targets", binary_data=False)]
    for algorithm in (None, "gzip", "deflate"):
        reply = asked.infer(
            "demo-kaon",
            inputs,
            outputs=wanted,
            request_compression_algorithm=algorithm,
        )
        np.testing.assert_array_equal(reply.as_numpy("targets"), local)


def test_a_compressed_request_is_not_larger_than_others(server: Addresses) -> None:
    import gzip

    from asking import INFER, ask

    bomb = gzip.compress(bytes(200 * 2**20))
    answer = ask(f"{server.http}{INFER}", bomb, **{"Content-Encoding": "gzip"})
    assert answer.status == 413
    assert "too large, expected at most 1048576 bytes" in answer.content["error"]


def test_typed_contents_of_grpc(server: Addresses) -> None:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    x = rows(4)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        asked = service_pb2.ModelInferRequest(model_name="demo-kaon", id="i")
        first = asked.inputs.add(name="conditions", datatype="FP32", shape=[4, 3])
        first.contents.fp32_contents.extend(x.ravel().tolist())
        second = asked.inputs.add(name="keys", datatype="UINT64", shape=[4])
        second.contents.uint64_contents.extend(range(4))
        reply = stub.ModelInfer(asked)
        assert reply.id == "i"
        found = np.frombuffer(reply.raw_output_contents[0], np.float32).reshape(4, 5)
        local = BUNDLE.generate_keyed(x, np.arange(4, dtype=np.uint64))
        np.testing.assert_array_equal(found, local)
        del asked.inputs[1].contents.uint64_contents[0]
        with pytest.raises(grpc.RpcError, match="got 3 numbers, expected 4"):
            stub.ModelInfer(asked)
