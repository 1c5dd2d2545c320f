"""A server under load: 8 clients, broken requests, and kills while clients wait.

`pytest tests/benchmarks/test_service.py -n 0 -s` prints the figures of the page about
services. PIDGAN_REQUESTS changes the number of requests.
"""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pidgan
from pidgan.files.machine import available_cores
from pidgan.service.client import FarBundle, open_far

sys.path.insert(0, str(Path(__file__).parents[1] / "service"))
from asking import ask, broken, is_clean, rows

pytest.importorskip("prometheus_client")

REQUESTS = int(os.environ.get("PIDGAN_REQUESTS", "10000"))
CLIENTS = 8
SIZES = {1: 0.4, 10: 0.3, 100: 0.2, 1000: 0.08, 10_000: 0.02}
"""Rows of a request, and their shares."""

ROWS = 50_000
BROKEN = 2000
NAME = "demo-kaon"
WORST = 5.0
OVERHEAD = 0.20
GROWTH_MIB = 8

X, KEYS = rows(ROWS), np.arange(ROWS, dtype=np.uint64)


@contextmanager
def server(*bundles: object, http: int = 0, grpc: int = 0) -> Iterator[Any]:
    """Give a process that serves; its addresses are attributes of it."""
    words = (*bundles, "--json", "--http-port", http, "--grpc-port", grpc)
    process: Any = subprocess.Popen(
        [
            *(sys.executable, "-c", "from pidgan.cli import main; main()", "serve"),
            *map(str, words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told = process.stdout.readline()
    if not told:
        raise RuntimeError(process.stderr.read())
    process.told = json.loads(told)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        _, process.errors = process.communicate(timeout=60)


def memory(pid: int) -> float:
    """MiB of a process."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


Asker = Callable[[slice], np.ndarray]


def askers(told: dict[str, Any]) -> list[Asker]:
    """Clients: our own over HTTP and, if it is there, tritonclient over gRPC."""

    def over_http() -> Asker:
        far = open_far(told["http"], NAME)
        assert isinstance(far, FarBundle)
        return lambda part: far.generate_keyed(X[part], KEYS[part])

    def over_grpc() -> Asker:
        import tritonclient.grpc as library

        client = library.InferenceServerClient(told["grpc"])

        def asks(part: slice) -> np.ndarray:
            inputs = [
                library.InferInput("conditions", X[part].shape, "FP32"),
                library.InferInput("keys", KEYS[part].shape, "UINT64"),
            ]
            inputs[0].set_data_from_numpy(X[part])
            inputs[1].set_data_from_numpy(KEYS[part])
            found: np.ndarray = client.infer(NAME, inputs).as_numpy("targets")
            return found

        return asks

    try:
        import tritonclient.grpc  # noqa: F401
    except ImportError:
        return [over_http() for _ in range(CLIENTS)]
    return [make() for make in (over_http, over_grpc) for _ in range(CLIENTS // 2)]


def one_client(
    number: int,
    told: dict[str, Any],
    work: list[tuple[int, int]],
    start: Any,
    results: Any,
) -> None:
    """Ask for rows, in a process of its own; give times, and rows that are wrong."""
    local = pidgan.open_bundle(NAME, threads=1).generate_keyed(X, KEYS)
    asks = askers(told)[number]
    taken, wrong = [], []
    start.wait()
    for first, size in work:
        part = slice(first, first + size)
        began = time.perf_counter()
        found = asks(part)
        taken.append((size, time.perf_counter() - began))
        if not np.array_equal(found, local[part]):
            wrong.append((first, size))
    results.put((taken, wrong))


def test_eight_clients_get_what_the_bundle_gives() -> None:
    rng = np.random.default_rng(3)
    sizes = rng.choice(list(SIZES), REQUESTS, p=list(SIZES.values()))
    starts = rng.integers(0, ROWS - max(SIZES), REQUESTS)
    work = list(zip(starts.tolist(), sizes.tolist(), strict=True))
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(CLIENTS + 1), context.Queue()
    with server(NAME) as process:
        clients = [
            context.Process(
                target=one_client,
                args=(i, process.told, work[i::CLIENTS], start, results),
            )
            for i in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        start.wait(120)
        began = time.perf_counter()
        found = [results.get(timeout=600) for _ in clients]
        seconds = time.perf_counter() - began
        for client in clients:
            client.join()
    assert process.errors == ""
    assert not [wrong for _, own in found for wrong in own]
    taken = [one for own, _ in found for one in own]
    assert len(taken) == REQUESTS
    print(f"\n{REQUESTS} requests, {sizes.sum()} rows, {seconds:.1f} s")
    ratios = {}
    for size in (0, *SIZES):
        own = [t for n, t in taken if size in (0, n)]
        if len(own) >= 100:
            middle, late = np.quantile(own, [0.5, 0.99])
            ratios[size] = late / middle
            name = f"{size} rows" if size else "all"
            print(
                f"{name:12} {len(own):6} requests: median {1e3 * middle:6.1f} ms, "
                f"p99 {1e3 * late:6.1f} ms, ratio {late / middle:.1f}"
            )
    assert all(ratio <= WORST for ratio in ratios.values()), ratios


def test_overhead_of_ten_thousand_rows() -> None:
    bundle = pidgan.open_bundle(NAME, threads=available_cores())
    part = slice(0, 10_000)
    with server(NAME) as process:
        all_askers = askers(process.told)
        ways = {
            "local": lambda: bundle.generate_keyed(X[part], KEYS[part]),
            "HTTP": lambda: all_askers[0](part),
            "gRPC": lambda: all_askers[-1](part),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(120):
            for way, function in ways.items():
                began = time.perf_counter()
                function()
                times[way].append(time.perf_counter() - began)
    print()
    # Other work on the machine only adds: the lower quartile sees least of it.
    for quantile in (0.5, 0.25):
        found = {way: np.quantile(own[5:], quantile) for way, own in times.items()}
        for way, seconds in found.items():
            more = seconds / found["local"] - 1
            text = f"{1e3 * seconds:6.1f} ms, {100 * more:+.0f} %"
            print(f"10000 rows, quantile {quantile:4}, {way:6} {text}")
    assert found["HTTP"] <= (1 + OVERHEAD) * found["local"]
    assert found["gRPC"] <= (1 + OVERHEAD) * found["local"]


def test_broken_requests_cost_no_memory() -> None:
    with server(NAME) as process:
        url, pid = process.told["http"], process.pid
        statuses: dict[int, int] = {}

        def send(numbers: range) -> None:
            for number in numbers:
                path, body, headers = broken(number)
                answer = ask(f"{url}{path}", body, **headers)
                assert is_clean(answer), (number, answer)
                statuses[answer.status] = statuses.get(answer.status, 0) + 1

        send(range(BROKEN, BROKEN + 300))
        before = memory(pid)
        send(range(BROKEN))
        grown = memory(pid) - before
        metrics = ask(f"{url}/metrics").body.decode()
        assert "pidgan_open_requests 0.0" in metrics
    print(f"\n{BROKEN} broken requests: {statuses}, memory {grown:+.1f} MiB")
    assert process.errors == ""
    assert grown < GROWTH_MIB


def test_kills_deliver_nothing_wrong(tmp_path: Path) -> None:
    local = pidgan.open_bundle(NAME).generate_keyed(X, KEYS)
    with server(NAME) as process:
        told = process.told
        port, grpc = (int(told[k].rpartition(":")[2]) for k in ("http", "grpc"))
        far: Any = open_far(told["http"], NAME)
        far.generate_keyed(X[:2], KEYS[:2])
    counts = {"right": 0, "wrong": 0}
    ends: list[str] = []
    stopped = threading.Event()

    def run(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stopped.is_set():
            start, size = int(rng.integers(0, 30_000)), int(rng.integers(1, 15_000))
            part = slice(start, start + size)
            try:
                found = far.generate_keyed(X[part], KEYS[part])
            except pidgan.PidganError as error:
                ends.append(str(error))
                return
            is_right = np.array_equal(found, local[part])
            counts["right" if is_right else "wrong"] += 1

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    kills = 6
    for _ in range(kills):
        with server(NAME, http=port, grpc=grpc) as process:
            until = counts["right"] + 20
            while counts["right"] < until and not ends:
                time.sleep(0.05)
            process.kill()
    assert not ends
    assert counts["wrong"] == 0
    # A server of another bundle under the same name: every client stops.
    changed = _other_bundle(tmp_path)
    with server(f"{NAME}={changed}", http=port, grpc=grpc):
        for thread in threads:
            thread.join(60)
    stopped.set()
    print(f"\n{kills} kills, 4 clients: {counts['right']} right replies, 0 wrong")
    assert counts["wrong"] == 0
    assert len(ends) == 4
    assert all("is of another bundle than before" in text for text in ends)


def _other_bundle(folder: Path) -> Path:
    """Write the same network with another card, and so another hash."""
    from pidgan.bundle.bundle_file import read_bundle_file
    from pidgan.bundle.shipped import shipped_path

    onnx = pytest.importorskip("onnx")
    from pidgan.bundle.bundle_file import CARD_KEY, seal

    data = read_bundle_file(shipped_path(NAME, ".onnx")).data
    model = onnx.load_from_string(data)
    card = next(p.value for p in model.metadata_props if p.key == CARD_KEY)
    content = json.loads(card)
    content["seed"] += 1
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {CARD_KEY: json.dumps(content)})
    path = folder / "other.onnx"
    path.write_bytes(seal(model.SerializeToString()))
    return path
