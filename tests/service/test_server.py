"""A server gives what the bundle gives, whatever is asked together; clean errors."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from asking import INFER, ask, binary, broken, is_clean, request, rows
from command_line import Run, one_line
from toy_collection import write_bundles

import pidgan
from pidgan.bundle.collecting import collect
from pidgan.bundle.noise import column_keys, keyed_normal
from pidgan.service.messages import JSON_LENGTH, Message, read_reply, write_request

pytest.importorskip("prometheus_client")

from pidgan.service.models import open_models
from pidgan.service.server import serving

BUNDLE = pidgan.open_bundle("demo-kaon")
OPEN = "pidgan_open_requests"
NAMES = list(BUNDLE.card.condition_names)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(["demo-kaon"], threads=2, max_request=1) as server:
        yield server.http


def infer(url: str, name: str = "demo-kaon", **given: Any) -> dict[str, Any]:
    """Return the tensors of a reply, asked with bytes."""
    parameters = given.pop("parameters", {})
    message = Message(tensors=given, parameters=parameters, id="b")
    body, length = write_request(message, ["targets", "status"])
    answer = ask(f"{url}/v2/models/{name}/infer", body, **{JSON_LENGTH: str(length)})
    if answer.status != 200:
        raise ValueError(answer.content["error"])
    reply, content = read_reply(answer.body, answer.length)
    assert content["id"] == "b"
    return dict(reply.tensors)


def test_targets_and_status_are_those_of_the_bundle(url: str) -> None:
    x = rows(3000)
    x[5, 1], x[6, 0], x[7, 2] = np.nan, np.inf, 1e6
    frame = pd.DataFrame(x, columns=[f"K_{n}" for n in NAMES])
    local = BUNDLE.sample(frame, seed=3, track="K", start=7).to_numpy(np.float32)
    asked = {"seed": 3, "track": "K", "start": 7}
    found = infer(url, conditions=x, parameters=asked)
    np.testing.assert_array_equal(found["targets"], local[:, :-1])
    np.testing.assert_array_equal(found["status"], local[:, -1])
    assert found["status"][5] == found["status"][6] == 2
    assert found["status"][7] == 1


def test_sources_of_noise_agree(url: str) -> None:
    x = rows(300)
    events = np.stack([np.arange(300) // 7, np.arange(300) + 10**15], axis=1)
    keys = column_keys([*events.T], seed=4)
    noise = keyed_normal(keys, n_noise=BUNDLE.card.n_noise)
    local = BUNDLE.generate(x, noise)
    for given in (
        {"noise": noise},
        {"keys": keys},
        {"keys": keys.view(np.int64)[:, np.newaxis]},
        {"identity": events, "parameters": {"seed": 4}},
        {"identity": events.astype(np.float64), "parameters": {"seed": 4}},
    ):
        found = infer(url, conditions=x, **given)
        np.testing.assert_array_equal(found["targets"], local)


def test_results_do_not_depend_on_who_else_asks(url: str) -> None:
    x, keys = rows(20_000), np.arange(20_000, dtype=np.uint64)
    local = BUNDLE.generate_keyed(x, keys)
    rng = np.random.default_rng(2)
    sizes = rng.choice([1, 2, 7, 100, 513, 2048, 5000], 60)
    starts = rng.integers(0, 15_000, 60)

    def one(work: tuple[int, int]) -> bool:
        part = slice(work[0], work[0] + work[1])
        found = infer(url, conditions=x[part], keys=keys[part])
        return np.array_equal(found["targets"], local[part])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, zip(starts.tolist(), sizes.tolist(), strict=True)))
    metrics = ask(f"{url}/metrics").body.decode()
    blocks = float(_value(metrics, "pidgan_block_requests_count"))
    assert blocks < float(_value(metrics, "pidgan_block_requests_sum"))


def _value(metrics: str, name: str) -> str:
    (line,) = [li for li in metrics.splitlines() if li.startswith(f"{name} ")]
    return line.rpartition(" ")[2]


def test_json_and_bytes_agree(url: str) -> None:
    body, length = binary(9)
    answer = ask(f"{url}{INFER}", body, **{JSON_LENGTH: str(length)})
    with_bytes = read_reply(answer.body, answer.length)[0].tensors["targets"]
    content = request(9)
    content["inputs"][0]["data"][3][1] = None
    reply = ask(f"{url}{INFER}", json.dumps(content).encode()).content
    targets, status = reply["outputs"]
    assert targets["shape"] == [9, 5]
    found = np.array(targets["data"], dtype=np.float32).reshape(9, 5)
    assert np.isnan(found[3]).all()
    assert status["data"] == [0, 0, 0, 2, 0, 0, 0, 0, 0]
    others = np.arange(9) != 3
    np.testing.assert_array_equal(found[others], with_bytes[others])
    assert reply["parameters"]["sha256"] == BUNDLE.sha256


def test_no_rows_have_no_targets(url: str) -> None:
    found = infer(url, conditions=rows(0), keys=np.zeros(0, np.uint64))
    assert found["targets"].shape == (0, 5)
    assert found["status"].shape == (0,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "got none, expected one source of noise"),
        ({"keys": [1] * 5, "parameters": {"seed": 1}}, "got keys and seed"),
        ({"keys": [1] * 4}, "different numbers of rows: conditions 5, keys 4"),
        ({"keys": [1.0] * 5}, "keys has datatype FP64, expected UINT64 or INT64"),
        ({"parameters": {"seed": -1}}, "parameter seed is -1"),
        ({"parameters": {"seed": True}}, "parameter seed is True"),
        ({"parameters": {"seed": 1, "strat": 5}}, "no parameter 'strat'; closest: 'st"),
        (
            {"keys": [1] * 5, "parameters": {"track": "K"}},
            "track has no meaning",
        ),
        ({"noise": np.zeros((5, 6))}, "noise has datatype FP64, expected FP32"),
        ({"noise": np.zeros((5, 7), "f4")}, r"noise has shape \[5, 7\], expected \[n"),
        ({"noise": np.full((5, 6), np.nan, "f4")}, "not finite"),
        ({"condition": rows(5), "keys": [1] * 5}, "no input 'condition'.*closest"),
        ({"identity": np.zeros((5, 0)), "parameters": {"seed": 1}}, "no column"),
    ],
)
def test_a_wrong_request_says_what_is_expected(
    url: str, given: dict[str, Any], message: str
) -> None:
    arrays = {k: v if k == "parameters" else np.asarray(v) for k, v in given.items()}
    with pytest.raises(ValueError, match=message):
        infer(url, conditions=rows(5), **arrays)


def test_wrong_conditions_are_named(url: str) -> None:
    keys = np.zeros(5, np.uint64)
    with pytest.raises(ValueError, match=r"needs input 'conditions', FP32 of shape"):
        infer(url, keys=keys)
    with pytest.raises(ValueError, match=r"conditions has shape \[5, 2\], expected"):
        infer(url, conditions=rows(5)[:, :2], keys=keys)
    with pytest.raises(ValueError, match="conditions has datatype FP64"):
        infer(url, conditions=rows(5).astype(float), keys=keys)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v2/models/kaon", 404, "no model 'kaon', only demo-kaon"),
        ("/v2/models/demo-kaon/versions/2", 404, "has no version '2', only 1"),
        ("/v2/collections/x", 404, "no collection 'x', only none"),
        ("/v2/model", 404, "no such path"),
        (INFER, 405, "GET is not allowed here, only POST"),
    ],
)
def test_what_is_not_there(url: str, path: str, status: int, text: str) -> None:
    answer = ask(f"{url}{path}")
    assert answer.status == status
    assert text in answer.content["error"]


def test_large_requests_are_refused(url: str) -> None:
    x, keys = rows(60_000), np.zeros(60_000, np.uint64)
    with pytest.raises(ValueError, match="too large, expected at most 1048576 bytes"):
        infer(url, conditions=x, keys=keys)
    # Their reply would be too large.
    with pytest.raises(ValueError, match="got 45000 rows, expected at most 43690"):
        infer(url, conditions=x[:45_000], parameters={"seed": 1})


def test_broken_requests_have_clean_errors(url: str) -> None:
    for number in range(150):
        path, body, headers = broken(number)
        answer = ask(f"{url}{path}", body, **headers)
        assert is_clean(answer), (number, answer)
    assert infer(url, conditions=rows(2), parameters={"seed": 1})


def test_health_metadata_and_metrics(url: str) -> None:
    assert ask(f"{url}/v2/health/live").status == 200
    assert ask(f"{url}/v2/health/ready").content == {"ready": True}
    assert ask(f"{url}/v2").content["name"] == "pidgan"
    found = ask(f"{url}/v2/models/demo-kaon").content
    assert found["inputs"] == [
        {"name": "conditions", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "noise", "datatype": "FP32", "shape": [-1, 6]},
    ]
    assert found["versions"] == ["1"]
    index = ask(f"{url}/v2/repository/index", b"").content
    assert index == [{"name": "demo-kaon", "version": "1", "state": "READY"}]
    infer(url, conditions=rows(2), parameters={"seed": 1})
    metrics = ask(f"{url}/metrics").body.decode()
    assert 'pidgan_rows_total{model="demo-kaon",protocol="http",version="1"}' in metrics


def test_names_and_versions(tmp_path: Path) -> None:
    bundles = list(write_bundles(tmp_path / "all", years=[2017]).values())
    first, second = bundles[:2]
    found = open_models([f"k={first}", f"k={second}", f"p/7={first}", str(second)])
    assert {n: [*own] for n, own in found.by_name.items()} == {
        "k": [1, 2],
        "p": [7],
        second.stem: [1],
    }
    assert found.find("k").version == 2
    assert found.find("k", "1").bundle.sha256 == pidgan.open_bundle(first).sha256
    with pytest.raises(pidgan.PidganError, match="has version 7 already"):
        open_models([f"p/7={first}", f"p/7={second}"])
    with pytest.raises(pidgan.PidganError, match="is no name of a model"):
        open_models([f"a b={first}"])
    with pytest.raises(pidgan.PidganError, match="version is 'x'"):
        open_models([f"a/x={first}"])
    pidgan.export_triton(first, tmp_path / "models", name="k")
    pidgan.export_triton(second, tmp_path / "models", name="k", model_version=10)
    assert [*open_models([str(tmp_path / "models")]).by_name["k"]] == [1, 10]


def test_a_collection_is_served_with_its_rules(tmp_path: Path) -> None:
    write_bundles(tmp_path / "b", years=[2017])
    collect([str(tmp_path / "b")], tmp_path / "all.toml")
    with serving([str(tmp_path / "all.toml")]) as server:
        found = ask(f"{server.http}/v2/collections/all").content
        assert set(found["models"]) == {p.stem for p in tmp_path.glob("b/*.onnx")}
        assert found["content"]["choose"]["species"] == "{track}_TRUEID"


def _start(*words: object) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    command = [sys.executable, "-m", "pidgan.cli", "serve", *map(str, words)]
    code = "from pidgan.cli import main; main()"
    command[1:3] = ["-c", code]
    process = subprocess.Popen(
        [*command, "--no-grpc", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def test_a_stop_finishes_requests_in_work() -> None:
    process, told = _start("demo-kaon", "--http-port", 0, "--threads", 1)
    answers: list[dict[str, Any]] = []
    x = rows(60_000)

    def asks() -> None:
        found = infer(told["http"], conditions=x, parameters={"seed": 1})
        answers.append(found)

    threads = [threading.Thread(target=asks) for _ in range(2)]
    for thread in threads:
        thread.start()
    while (
        "pidgan_open_requests 2.0" not in ask(f"{told['http']}/metrics").body.decode()
    ):
        assert not answers
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    assert len(answers) == 2
    np.testing.assert_array_equal(answers[0]["targets"], answers[1]["targets"])


def test_what_cannot_be_served_is_one_line(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = run("serve", "demo-kaon", "--http-port", port, "--no-grpc")
    one_line(found, f"port {port} of 127.0.0.1", "--http-port takes another")
    (tmp_path / "no.onnx").write_bytes(b"x")
    one_line(run("serve", tmp_path / "no.onnx", "--no-grpc"), "expected a bundle")
    one_line(run("serve", tmp_path / "none.onnx", "--no-grpc"), "no such file")
    one_line(run("serve", tmp_path / "none.toml", "--no-grpc"), "none.toml")
    (tmp_path / "empty").mkdir()
    one_line(run("serve", tmp_path / "empty", "--no-grpc"), "no bundles")
    one_line(run("serve", "demo-kaon", "--host", "no.such.invalid", "--no-grpc"), "--h")
