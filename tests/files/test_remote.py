"""Remote files are read in place, from a real server on loopback, as local ones."""

import asyncio
import functools
import http.server
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from aiohttp import web
from toy_generator import ToyGenerator, make_card

from pidgan.application.apply import apply
from pidgan.errors import NtupleError
from pidgan.files import trees
from pidgan.files.tables import Source, find_sources, read_columns, write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.definition import Sample

ENTRIES = 30_000
TARGETS = ["K_DLLk", "K_DLLp", "K_pidgan_status"]


def columns() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 4, ENTRIES)
    return {
        "K_P": rng.uniform(5e3, 9e4, ENTRIES),
        "K_ETA": rng.uniform(2, 4.5, ENTRIES),
        "x": rng.normal(size=ENTRIES),
        "jets": ak.unflatten(rng.normal(size=int(counts.sum())), counts),
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of each format."""
    path = tmp_path_factory.mktemp("served")
    write_trees(path / "tree.root", {"T": columns()})
    write_trees(path / "table.parquet", {"": columns()})
    with uproot.recreate(path / "rntuple.root") as file:
        file.mkrntuple("T", columns())
    return path


@pytest.fixture(scope="module")
def ranges() -> list[str]:
    """Range headers of all requests."""
    return []


@pytest.fixture(scope="module")
def server(directory: Path, ranges: list[str]) -> Iterator[str]:
    """Address of an HTTP server that answers requests for ranges of bytes."""

    @web.middleware
    async def record(request: web.Request, handler: Any) -> Any:
        if "Range" in request.headers:
            ranges.append(request.headers["Range"])
        return await handler(request)

    async def start() -> tuple[web.AppRunner, int]:
        app = web.Application(middlewares=[record])
        app.router.add_static("/", directory)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    yield f"http://127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


def compare(address: str, path: Path, tmp_path: Path) -> None:
    """Apply to a remote file and to the same local one."""
    tree = "" if path.suffix == ".parquet" else ":T"
    for mode in ("append", "friend"):
        outputs = [tmp_path / f"{mode}_{name}{path.suffix}" for name in ("far", "near")]
        for out, given in zip(outputs, (address, path), strict=True):
            apply(
                {"K": ToyGenerator(card=make_card())},
                f"{given}{tree}",
                out,
                mode=mode,  # type: ignore[arg-type]
                chunk=7000,
            )
        names = [*TARGETS, "K_P", "x"] if mode == "append" else TARGETS
        far, near = (
            read_columns(Source(str(out), tree[1:] or None), names) for out in outputs
        )
        assert far.equals(near)


@pytest.mark.parametrize("name", ["tree.root", "rntuple.root"])
def test_http(
    server: str, directory: Path, tmp_path: Path, ranges: list[str], name: str
) -> None:
    ranges.clear()
    compare(f"{server}/{name}", directory / name, tmp_path)
    assert ranges, "the file was read in pieces"


def test_a_remote_file_that_changes_is_not_finished(
    server: str, directory: Path, tmp_path: Path
) -> None:
    served = directory / "changing.root"
    shutil.copy(directory / "tree.root", served)
    arguments: Any = ({"K": ToyGenerator(card=make_card())}, f"{server}/changing.root")
    apply(*arguments, tmp_path / "b.root")
    assert apply(*arguments, tmp_path / "b.root").skipped
    data = {name: values[: ENTRIES // 2] for name, values in columns().items()}
    write_trees(served, {"T": data}, overwrite=True)
    with pytest.raises(NtupleError, match=r"b\.root exists and differs in input"):
        apply(*arguments, tmp_path / "b.root")


def test_what_a_server_does_not_have_is_named(server: str, tmp_path: Path) -> None:
    with pytest.raises(NtupleError, match=r"http://127.*/none\.root cannot be read"):
        find_sources(f"{server}/none.root")
    with pytest.raises(NtupleError, match=r"none\.parquet cannot be read: FileNot"):
        apply(
            {"K": ToyGenerator(card=make_card())},
            f"{server}/none.parquet",
            tmp_path / "b.parquet",
        )
    assert list(tmp_path.iterdir()) == []


def test_sweights_of_another_file(server: str, directory: Path, tmp_path: Path) -> None:
    """Tuple and weights lie on a server, or one of them does."""
    rng, n = np.random.default_rng(2), 2000
    mass, weights = rng.normal(3096, 10, n), rng.normal(0.7, 0.5, n)
    rows = rng.permutation(n)
    data = {"M": mass, "P": rng.uniform(5e3, 9e4, n), "DLL": rng.normal(size=n)}
    ranks = {"order_index": np.argsort(np.argsort(mass))[rows], "sw": weights[rows]}
    (directory / "w").mkdir()
    write_trees(directory / "mu.x.root", {"A/T": data})
    write_trees(directory / "mu.x_sw.root", {"A/T": ranks})
    shutil.copy(directory / "mu.x_sw.root", directory / "w")
    shutil.copy(directory / "mu.x.root", tmp_path)
    sample = Sample.model_validate(
        {
            "schema": 1,
            **dict.fromkeys(("name", "title", "detector", "source"), "toy"),
            "species": "mu+",
            "sweights": {"file": "{stem}_sw.root", "branch": "sw", "order": ["M"]},
            "conditions": [{"name": "P", "range": [1e3, 1e5]}],
            "targets": [{"name": "DLL", "range": [-9, 9]}],
        }
    )
    for file, place in (
        (f"{server}/mu.x.root", None),
        (f"{server}/mu.x.root", directory),
        (tmp_path / "mu.x.root", server),
        (tmp_path / "mu.x.root", f"{server}/w/"),
    ):
        dataset = build_dataset(sample, file, sweights_from=place)
        np.testing.assert_array_equal(dataset.weights, weights)
    with pytest.raises(
        NtupleError, match=r"sWeights of .*/none/mu.x_sw.root cannot be"
    ):
        build_dataset(sample, tmp_path / "mu.x.root", sweights_from=f"{server}/none")


@pytest.fixture
def xrootd(directory: Path) -> Iterator[str]:
    """Address of a directory that an XRootD server exports."""
    pytest.importorskip("fsspec_xrootd")
    program = shutil.which("xrootd")
    if program is None:
        pytest.skip("there is no XRootD server (the program xrootd)")
    # The server does not run as root, and pytest's directories are for their owner.
    served = Path(tempfile.mkdtemp())
    shutil.copytree(directory, served / "data")
    for path in (served, *served.rglob("*")):
        path.chmod(0o777)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (served / "xrootd.cfg").write_text(
        f"xrd.port {port}\nall.export {served}/data\nall.adminpath {served}\n"
        f"all.pidpath {served}\n"
    )
    words = [program, "-c", f"{served}/xrootd.cfg", "-l", f"{served}/log"]
    words += ["-R", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(words)
    try:
        for _ in range(300):
            assert process.poll() is None, "the server ended"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"root://127.0.0.1:{port}/{served}/data"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(served)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["tree.root", "rntuple.root"])
def test_xrootd(xrootd: str, directory: Path, tmp_path: Path, name: str) -> None:
    compare(f"{xrootd}/{name}", directory / name, tmp_path)


# A process in which the OpenSSL of the client meets TensorFlow's would end.
READ = """
from pidgan.errors import PidganError
from pidgan.files.tables import find_sources, read_columns
try:
    print(read_columns(find_sources({address!r})[0], ["x"]).shape)
except PidganError as error:
    print(error)
"""
FIRST = {"tensorflow": "import tensorflow", "training": "import pidgan.training.loop"}


def read_after(first: str, address: str) -> str:
    """What a process prints that loads TensorFlow and then reads a tree."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    retries = {"XRD_CONNECTIONRETRY": "1", "XRD_CONNECTIONWINDOW": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FIRST[first] + READ.format(address=address)],
        env=os.environ | retries | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        timeout=120,
        text=True,
    )
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("first", FIRST)
def test_xrootd_after_tensorflow(xrootd: str, first: str) -> None:
    assert read_after(first, f"{xrootd}/tree.root:T") == f"({ENTRIES}, 1)\n"


@pytest.mark.parametrize("first", FIRST)
def test_a_refused_connection_after_tensorflow(first: str) -> None:
    pytest.importorskip("fsspec_xrootd")
    found = read_after(first, "root://127.0.0.1:9//none.root:T")
    assert "none.root cannot be read" in found


def test_plugins_of_the_client_are_loaded_with_it() -> None:
    pytest.importorskip("fsspec_xrootd")
    load = "from pidgan.files.xrootd import load_client as load; load()"
    show = "print(open('/proc/self/maps').read())"
    done = subprocess.run(
        [sys.executable, "-c", f"{load}; {show}"], capture_output=True, text=True
    )
    # They are asked for when a server wants a certificate, after TensorFlow.
    assert "libXrdCl.so" in done.stdout
    for plugin in ("libXrdSecgsi-", "libXrdCryptossl-"):
        assert plugin in done.stdout


@pytest.mark.parametrize("name", ["tree.root", "rntuple.root"])
def test_a_server_without_ranges_is_named(directory: Path, name: str) -> None:
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=directory
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{served.server_port}/{name}"
        with pytest.raises(
            NtupleError, match=f"{name}.* cannot be read.* ranges of bytes"
        ):
            find_sources(address)
        served.shutdown()


@pytest.mark.parametrize("name", ["a.root", "a.parquet", "a.hdf5"])
def test_a_silent_server_is_given_up(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "a.hdf5":
        pytest.importorskip("h5py")
    monkeypatch.setattr(trees, "REMOTE_SILENCE", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(NtupleError, match=f"{name}.* cannot be read: .*Timeout"):
            read_columns(Source(f"http://127.0.0.1:{port}/{name}", "T"), ["x"])
        assert time.monotonic() - start < 30
