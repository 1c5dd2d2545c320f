"""Files at addresses are fetched once, verified, and used off-line."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toy_collection import rows, write_bundle, write_rows
from toy_generator import make_card, toy_onnx, with_self_test

from pidgan.application.apply import apply
from pidgan.bundle.collecting import collect
from pidgan.bundle.collection import Collection
from pidgan.errors import BundleError, NtupleError
from pidgan.files import fetching, trees
from pidgan.files.fetching import cache_folder, fetch, file_name, neighbour
from pidgan.files.tables import Source, read_columns, write_table


class Server:
    """An HTTP server of files, which counts requests and may be slow or silent."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.silent = threading.Event()
        self.hold: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self, is_head=True)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler, *, is_head: bool = False) -> None:
        name = request.path.lstrip("/")
        if not is_head:
            self.requests.append(name)
        if name not in self.files:
            request.send_error(404)
            return
        data = self.files[name]
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if is_head:
            return
        if name in self.hold:
            request.wfile.write(data[: len(data) // 2])
            request.wfile.flush()
            self.silent.wait(60)
            return
        request.wfile.write(data)

    def put(self, name: str, data: bytes) -> tuple[str, str]:
        self.files[name] = data
        return f"{self.address}/{name}", hashlib.sha256(data).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.silent.set()
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIDGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_a_file_is_fetched_once_and_then_used_off_line(
    server: Server, cache: Path
) -> None:
    address, sha256 = server.put("a/kaon.onnx", b"x" * 3_000_000)
    path = fetch(address, sha256)
    assert path.read_bytes() == b"x" * 3_000_000
    assert path.name == "kaon.onnx"
    n = len(server.requests)
    server.files.clear()
    assert fetch(address, sha256) == path
    assert len(server.requests) == n
    assert files_in(cache) == ["kaon.onnx"]


def test_another_checksum_is_refused_and_nothing_stays(
    server: Server, cache: Path
) -> None:
    address, sha256 = server.put("kaon.onnx", b"right")
    server.files["kaon.onnx"] = b"wrong"
    with pytest.raises(NtupleError, match=f"has sha256 .*, expected {sha256}"):
        fetch(address, sha256)
    assert files_in(cache) == []
    server.files["kaon.onnx"] = b"right"
    path = fetch(address, sha256)
    path.write_bytes(b"damaged later")
    assert fetch(address, sha256).read_bytes() == b"right"
    path.write_bytes(b"damaged later")
    server.files.clear()
    with pytest.raises(
        NtupleError, match=r"was damaged and is removed; .*cannot be rea"
    ):
        fetch(address, sha256)
    assert files_in(cache) == []


def test_a_silent_server_is_given_up(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "REMOTE_SILENCE", 0.5)
    address, sha256 = server.put("kaon.onnx", b"x" * 1_000_000)
    server.hold.add("kaon.onnx")
    started = time.monotonic()
    with pytest.raises(NtupleError, match=r"kaon.onnx cannot be read: "):
        fetch(address, sha256)
    assert time.monotonic() - started < 20
    assert files_in(cache) == []


def test_a_file_that_is_too_large_is_given_up(server: Server, cache: Path) -> None:
    address, sha256 = server.put("kaon.onnx", b"x" * 3_000_000)
    with pytest.raises(NtupleError, match="has more than 1 MiB"):
        fetch(address, sha256, most=2**20)
    assert files_in(cache) == []


def test_a_killed_process_leaves_nothing_half_written(
    server: Server, cache: Path
) -> None:
    address, sha256 = server.put("kaon.onnx", b"x" * 4_000_000)
    server.hold.add("kaon.onnx")
    program = (
        "import sys; from pidgan.files.fetching import fetch; "
        "print('ready', flush=True); fetch(*sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, address, sha256], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    until = time.monotonic() + 30
    while not files_in(cache) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()
    assert "kaon.onnx" not in files_in(cache)
    server.hold.clear()
    assert fetch(address, sha256).read_bytes() == b"x" * 4_000_000
    assert files_in(cache) == ["kaon.onnx"]


def test_names_of_addresses() -> None:
    assert file_name("https://host/a/kaon.onnx?token=x/y") == "kaon.onnx"
    assert file_name("root://host//eos/a/..") == "file"
    assert (
        neighbour("https://host/a/kaon.onnx?token=x/y", "b.parquet")
        == "https://host/a/b.parquet?token=x/y"
    )


def test_the_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("PIDGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(fetching.sys, "platform", "linux")
    assert cache_folder() == Path("/somewhere/pidgan")
    monkeypatch.setattr(fetching.sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "pidgan"


def test_a_collection_of_addresses(server: Server, cache: Path, tmp_path: Path) -> None:
    """Bundles and reference files come from a server, and stay when it has gone."""
    pytest.importorskip("onnx")
    frame = pd.DataFrame(
        {n: np.linspace(2, 4, 50) for n in ("ETA", "DLLk", "DLLp", "weight")}
    ).assign(P=2e4)
    write_table(tmp_path / "K.reference.parquet", frame)
    data = (tmp_path / "K.reference.parquet").read_bytes()
    _, sha256 = server.put("far/K.reference.parquet", data)
    reference = {"file": "K.reference.parquet", "sha256": sha256, "rows": 50}
    card = with_self_test(make_card(reference=reference))
    address, _ = server.put("far/K.onnx", toy_onnx(card))
    pion = write_bundle(tmp_path / "pion.onnx", species="pi+", offset=1)
    path = tmp_path / "collection.toml"
    collect([address, pion], path)
    assert f'file = "{address}"' in path.read_text()
    ntuple = write_rows(tmp_path / "a.root", rows(500))
    summary = apply({"K": path}, ntuple, tmp_path / "b.root")
    assert summary.bundles["K"][0]["path"] == address
    bundle = Collection.open(path).open_bundles()[0]
    assert "far/K.reference.parquet" not in server.requests
    found = bundle.reference()
    assert found is not None
    assert len(found) == 50
    server.files.clear()
    n = len(server.requests)
    apply({"K": path}, ntuple, tmp_path / "c.root")
    assert Collection.open(path).open_bundles()[0].reference() is not None
    assert len(server.requests) == n
    both = [
        read_columns(Source(str(tmp_path / f"{x}.root"), "T"), ["K_DLLk"]) for x in "bc"
    ]
    assert both[0].equals(both[1])
    for file in cache.rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(
        BundleError, match=rf"collection.toml: {address}.* cannot be read"
    ):
        apply({"K": path}, ntuple, tmp_path / "d.root")
