"""`apply --server` writes what `apply` writes, whatever happens to the server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from asking import rows
from command_line import Run, one_line
from toy_collection import rows as mixed_rows
from toy_collection import write_bundles, write_rows

import pidgan
from pidgan.bundle.collecting import collect
from pidgan.service import client
from pidgan.service.client import open_far
from pidgan.service.messages import JSON_LENGTH

pytest.importorskip("prometheus_client")

from pidgan.service.server import serving

BUNDLE = pidgan.open_bundle("demo-kaon")

# A momentum below 0 has no targets.
pytestmark = pytest.mark.filterwarnings("ignore:.* have targets that are not finite")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(["demo-kaon", "kaon/4=demo-kaon"], threads=2) as server:
        yield server.http


@pytest.fixture
def frame() -> pd.DataFrame:
    x = rows(40_000)
    x[7, 1], x[8, 0] = np.nan, -1
    return pd.DataFrame(x, columns=["K_P", "K_ETA", "nTracks"]).assign(
        runNumber=np.arange(len(x)) // 100
    )


@pytest.mark.parametrize("key", [(), ("runNumber",)])
def test_columns_are_those_of_apply(
    url: str, frame: pd.DataFrame, key: tuple[str, ...]
) -> None:
    near = pidgan.apply({"K": "demo-kaon"}, frame, seed=5, key=key)
    far = pidgan.apply({"K": "kaon/4"}, frame, seed=5, key=key, server=url)
    pd.testing.assert_frame_equal(near, far, check_exact=True)


def test_files_are_those_of_apply(
    url: str, frame: pd.DataFrame, tmp_path: Path, run: Run
) -> None:
    frame.to_parquet(tmp_path / "in.parquet")
    names = [tmp_path / f"{n}.parquet" for n in ("near", "far")]
    words = ("apply", tmp_path / "in.parquet", "-q", "-o")
    assert run(*words, names[0], "--track", "K=demo-kaon").code == 0
    asked = ("--server", url, "--track", "K=demo-kaon")
    assert run(*words, names[1], *asked).code == 0
    near, far = (pd.read_parquet(name) for name in names)
    pd.testing.assert_frame_equal(near, far, check_exact=True)
    # The same request, by the hash of the bundle: nothing is left to be done.
    assert "skipped" in run(*words, names[0], *asked).out


def test_a_collection_of_a_server(tmp_path: Path) -> None:
    write_bundles(tmp_path / "b")
    collect([str(tmp_path / "b")], tmp_path / "all.toml", choose={"year": "year"})
    write_rows(tmp_path / "mixed.root", mixed_rows())
    near = tmp_path / "near.root"
    far = tmp_path / "far.root"
    source = str(tmp_path / "mixed.root")
    pidgan.apply({"K": tmp_path / "all.toml"}, source, near, progress=False)
    with serving([str(tmp_path / "all.toml")]) as server:
        asked: Any = {"server": server.http, "progress": False}
        pidgan.apply({"K": "all"}, source, far, **asked)
    from pidgan.files.tables import find_sources, read_columns

    (a,), (b,) = find_sources([str(near)]), find_sources([str(far)])
    names = ["K_DLLk", "K_DLLp", "K_pidgan_status"]
    pd.testing.assert_frame_equal(
        read_columns(a, names), read_columns(b, names), check_exact=True
    )


@pytest.mark.parametrize(
    ("track", "server", "texts"),
    [
        (
            "K=kaom",
            None,
            ("no model 'kaom', only demo-kaon, kaon; closest: 'kaon'",),
        ),
        ("K=kaon/7", None, ("model 'kaon' has no version '7', only 4",)),
        ("K=kaon/x y", None, ("has no version 'x y'",)),
        ("K=kaon", "ftp://x", ("server is 'ftp://x', expected an address",)),
        ("K=kaon", "http://", ("expected an address",)),
        ("K=kaon", "http://h:99999", ("expected an address",)),
        ("K=kaon", "http://no.such.invalid", ("http://no.such.invalid: gaierror",)),
        ("K=kaon", "http://localhost:1", ("no answer for 0 s (ConnectionRefused",)),
    ],
)
def test_wrong_servers_and_models_are_one_line(
    url: str,
    frame: pd.DataFrame,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    track: str,
    server: str | None,
    texts: tuple[str, ...],
) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT_SECONDS", 0.0)
    frame.to_parquet(tmp_path / "in.parquet")
    words = (
        "--track",
        track,
        "--server",
        server or url,
        "-o",
        tmp_path / "out.parquet",
    )
    one_line(run("apply", tmp_path / "in.parquet", *words), *texts)
    assert not (tmp_path / "out.parquet").exists()


def test_a_server_that_restarts_is_waited_for(frame: pd.DataFrame) -> None:
    near = BUNDLE.sample(frame, track="K")
    with serving(["demo-kaon"]) as server:
        port = int(server.http.rpartition(":")[2])
        far = open_far(server.http, "demo-kaon")
        assert isinstance(far, client.FarBundle)
        far.generate_keyed(rows(3), np.arange(3, dtype=np.uint64))
    found = []
    waiting = threading.Thread(
        target=lambda: found.append(pidgan.apply({"K": far}, frame, mode="friend"))
    )
    waiting.start()
    waiting.join(0.5)
    assert not found
    with serving(["demo-kaon"], http_port=port):
        waiting.join(60)
    pd.testing.assert_frame_equal(found[0], near, check_exact=True)


def test_another_bundle_of_the_same_name_is_refused(tmp_path: Path) -> None:
    paths = list(write_bundles(tmp_path / "b", years=[2017]).values())
    x, keys = rows(3)[:, :2], np.arange(3, dtype=np.uint64)
    with serving([f"k={paths[0]}"]) as server:
        port = int(server.http.rpartition(":")[2])
        far: Any = open_far(server.http, "k")
        far.generate_keyed(x, keys)
    with (
        serving([f"k={paths[1]}"], http_port=port),
        pytest.raises(pidgan.PidganError, match="is of another bundle than before"),
    ):
        far.generate_keyed(x, keys)
    with (
        serving([f"other={paths[0]}"], http_port=port),
        pytest.raises(pidgan.PidganError, match="no model 'k', only other"),
    ):
        far.generate_keyed(x, keys)


class Faulty(BaseHTTPRequestHandler):
    """A proxy that breaks some replies, and is otherwise honest."""

    protocol_version = "HTTP/1.1"
    behind = ""
    faults: list[str] = []  # noqa: RUF012

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes | None) -> None:
        from asking import ask

        length = self.headers.get(JSON_LENGTH)
        headers = {JSON_LENGTH: length} if length else {}
        found = ask(f"{self.behind}{self.path}", body, **headers)
        status, answer, end = found
        fault = self.faults.pop(0) if body and self.faults else ""
        if fault == "gone":
            self.close_connection = True
            return
        if fault == "busy":
            status, answer, end = 503, b'{"error": "later"}', None
        if fault == "other rows":
            content = json.loads(answer[: int(end or 0)])
            content["id"] = "somebody else's"
            head = json.dumps(content).encode()
            answer, end = head + answer[int(end or 0) :], str(len(head))
        self.send_response(status)
        if end:
            self.send_header(JSON_LENGTH, end)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        cut = len(answer) // 2 if fault == "cut" else len(answer)
        self.wfile.write(answer[:cut])
        self.close_connection = fault == "cut"


@pytest.fixture
def faulty(url: str) -> Iterator[str]:
    Faulty.behind = url
    server = ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_broken_replies_are_asked_for_again(faulty: str) -> None:
    far: Any = open_far(faulty, "demo-kaon")
    x, keys = rows(900), np.arange(900, dtype=np.uint64)
    Faulty.faults = ["gone", "cut", "busy", "busy", "cut"]
    np.testing.assert_array_equal(
        far.generate_keyed(x, keys), BUNDLE.generate_keyed(x, keys)
    )
    assert not Faulty.faults


def test_a_reply_to_another_request_is_refused(faulty: str) -> None:
    far: Any = open_far(faulty, "demo-kaon")
    Faulty.faults = ["other rows"]
    with pytest.raises(pidgan.PidganError, match="somebody else's"):
        far.generate_keyed(rows(3), np.arange(3, dtype=np.uint64))


def test_a_proxy_can_ask_who_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    named = client.Connection("https://me:p%40ss@host:444/pid/")
    assert named.url == "https://host:444/pid"
    assert named._headers == {"Authorization": "Basic bWU6cEBzcw=="}
    monkeypatch.setenv(client.TOKEN, "abc")
    assert client.Connection("host")._headers == {"Authorization": "Bearer abc"}


def test_several_processes_need_a_bundle(
    url: str, frame: pd.DataFrame, tmp_path: Path, run: Run
) -> None:
    for name in ("a", "b"):
        frame.to_parquet(tmp_path / f"{name}.parquet")
    words = ("--track", "K=kaon", "--server", url, "-o", tmp_path / "out")
    files = (tmp_path / "a.parquet", tmp_path / "b.parquet")
    one_line(run("apply", *files, *words, "--workers", 2), "several processes need")
    assert run("apply", *files, *words).code == 0
