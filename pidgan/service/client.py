"""Generators of a server: like a bundle, but a server generates their targets.

Rows are sent with the keys of their noise, so that the targets are those of the bundle
itself. A server that restarts is waited for. Every reply says by which bundle it was
made; one of another bundle is an error.
"""

import base64
import http.client
import json
import os
import ssl
import threading
import time
import urllib.parse
import uuid
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arguments import brief, checked
from pidgan.bundle.bundle_file import as_rows
from pidgan.bundle.card import Card
from pidgan.bundle.collection import Content, Member
from pidgan.bundle.noise import UInt64Array
from pidgan.errors import PidganError, nearest, one_line
from pidgan.service.messages import (
    JSON_LENGTH,
    Array,
    Message,
    RequestError,
    read_reply,
    write_request,
)

Float32Array = npt.NDArray[np.float32]

CALL_ROWS = 16_384
"""Most rows of a message: enough that the way there and back costs little."""

WAIT_SECONDS = 60.0
"""Longest time in which a server that does not answer is tried again."""

FIRST_WAIT_SECONDS = 5.0
"""The same before it has answered once, where the address may be wrong."""

FIRST_DELAY, MOST_DELAY = 0.05, 2.0
"""Seconds before a request is tried again; the delay doubles each time."""

ANSWER_SECONDS = 300
"""Longest time in which a server answers a request."""

TOKEN = "PIDGAN_SERVER_TOKEN"
"""Environment variable with a token that a proxy before the server may ask for."""


class Connection:
    """Connections to a server, used by one thread at a time and kept open."""

    def __init__(self, url: str) -> None:
        parts = _parsed(url)
        self._is_safe = parts.scheme == "https"
        self._host, self._port = str(parts.hostname), parts.port
        self._path = parts.path.rstrip("/")
        self._headers = _headers(parts)
        port = "" if self._port is None else f":{self._port}"
        self.url = f"{parts.scheme}://{self._host}{port}{self._path}"
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._has_answered = False
        weakref.finalize(self, _close, self._idle)

    def get(self, path: str) -> Any:
        """Return the JSON at a path; a PidganError says why there is none."""
        status, body, _ = self._ask("GET", path, None, {})
        content = self._content(status, body, path)
        if not isinstance(content, dict):
            raise PidganError(f"{self.url}{path}: {brief(content)}, expected an object")
        return content

    def infer(self, path: str, message: Message) -> tuple[Message, dict[str, Any]]:
        """Return the targets of a request, and what the reply says beside them."""
        body, length = write_request(message, ["targets"])
        headers = {
            JSON_LENGTH: str(length),
            "Content-Type": "application/octet-stream",
        }
        status, answer, found = self._ask("POST", path, body, headers)
        if status != 200:
            self._content(status, answer, path)
        try:
            return read_reply(answer, found)
        except RequestError as error:
            raise PidganError(f"{self.url}{path}: {error}") from error

    def _content(self, status: int, body: bytes, path: str) -> Any:
        """Return JSON, or raise what it says is wrong."""
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        if status == 200 and content is not None:
            return content
        said = content.get("error") if isinstance(content, dict) else None
        text = str(said)[:500] if said else f"status {status}, no server of pidgan"
        raise PidganError(f"{self.url}{path}: {text}")

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, str | None]:
        """Return status, body and length of its JSON; wait for a server that is away.

        A request may be sent twice: it changes nothing.
        """
        wait = WAIT_SECONDS if self._has_answered else FIRST_WAIT_SECONDS
        end, delay = time.monotonic() + wait, 0.0
        while True:
            try:
                status, answer, length = self._once(method, path, body, headers)
                if status not in (502, 503, 504):
                    self._has_answered = True
                    return status, answer, length
                problem = f"status {status}"
            except ssl.SSLCertVerificationError as error:
                raise PidganError(f"{self.url}: {one_line(error)}") from error
            except (OSError, http.client.HTTPException) as error:
                problem = one_line(error)
                is_named = isinstance(error, OSError) and _is_unknown(error)
                if is_named and not self._has_answered:
                    raise PidganError(f"{self.url}: {problem}") from error
            if time.monotonic() + delay > end:
                raise PidganError(
                    f"{self.url}: no answer for {wait:g} s ({problem}); is `pidgan "
                    "serve` running there?"
                )
            time.sleep(delay)
            delay = min(MOST_DELAY, 2 * delay or FIRST_DELAY)

    def _once(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, str | None]:
        with self._lock:
            link = self._idle.pop() if self._idle else None
        if link is None:
            kind: Any = http.client.HTTPConnection
            if self._is_safe:
                kind = http.client.HTTPSConnection
            link = kind(self._host, self._port, timeout=ANSWER_SECONDS)
        try:
            link.request(
                method, f"{self._path}{path}", body, {**self._headers, **headers}
            )
            reply = link.getresponse()
            # Raises where the connection ends before all bytes are there.
            answer = reply.read()
        except BaseException:
            link.close()
            # The others lead to the same server.
            with self._lock:
                _close(self._idle)
            raise
        if reply.will_close:
            link.close()
        else:
            with self._lock:
                self._idle.append(link)
        return reply.status, answer, reply.getheader(JSON_LENGTH)


@dataclass(frozen=True, kw_only=True)
class FarBundle:
    """A generator on a server; made by `open_far`.

    Attributes:
        card: Description of the generator.
        sha256: Hash of the bundle on the server.
        name: Name of the model.
        version: Version of the model.
        address: Where it is asked.
        call_rows: Most rows of a request.
    """

    card: Card
    sha256: str
    name: str
    version: str
    address: str
    call_rows: int
    _connection: Connection = field(repr=False, compare=False)

    def generate(self, conditions: Float32Array, noise: Float32Array) -> Float32Array:
        """Return targets (n, n_targets) for conditions and standard normal noise."""
        return self._ask(conditions, "noise", np.asarray(noise, np.float32))

    def generate_keyed(
        self, conditions: Float32Array, keys: UInt64Array
    ) -> Float32Array:
        """Return targets for conditions and keys (n,) of their noise."""
        return self._ask(conditions, "keys", np.asarray(keys, np.uint64))

    def _ask(self, conditions: Float32Array, name: str, z: Array) -> Float32Array:
        x = as_rows(conditions, "conditions", len(self.card.inputs))
        if len(z) != len(x):
            raise ValueError(f"{len(x)} rows of conditions but {len(z)} of {name}")
        y = np.empty((len(x), len(self.card.targets)), dtype=np.float32)
        for first in range(0, len(x), self.call_rows):
            rows = slice(first, first + self.call_rows)
            y[rows] = self._call(x[rows], name, z[rows])
        return y

    def _call(self, x: Float32Array, name: str, z: Array) -> Float32Array:
        """Return the targets of a request; the reply must be of this bundle."""
        ports, first = {}, 0
        for port, width in self.card.ports.items():
            if port != "noise":
                ports[port] = x[:, first : first + width]
                first += width
        message = Message(tensors={**ports, name: z}, id=uuid.uuid4().hex)
        path = f"/v2/models/{self.name}/versions/{self.version}/infer"
        reply, content = self._connection.infer(path, message)
        where = f"{self.address}: the reply"
        sha256 = reply.parameters.get("sha256")
        if sha256 != self.sha256:
            raise PidganError(
                f"{where} is of another bundle than before, sha256 {brief(sha256)}, "
                f"expected {self.sha256}: the server has changed; nothing of it is used"
            )
        told = (content.get("model_name"), content.get("model_version"), reply.id)
        expected = (self.name, self.version, message.id)
        if told != expected:
            raise PidganError(f"{where} is {brief(told)}, expected {brief(expected)}")
        y = reply.tensors.get("targets")
        shape = (len(x), len(self.card.targets))
        if y is None or y.dtype != np.float32 or y.shape != shape:
            got = "no targets" if y is None else f"targets {y.dtype} {y.shape}"
            raise PidganError(f"{where} has {got}, expected float32 {shape}")
        return y


@dataclass(frozen=True, kw_only=True)
class FarCollection:
    """A collection on a server; used as a `Collection` is."""

    content: Content
    path: str
    bundles: tuple[FarBundle, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        """What the file of the collection says of each bundle."""
        return self.content.bundles

    def rules(self) -> dict[str, Any]:
        """Return what decides which bundle a row gets, ready for JSON."""
        return self.content.rules()

    def open_bundles(self, *, verify: bool = True) -> Sequence[FarBundle]:
        """Return the bundles, which the server has tested when it started."""
        return self.bundles


@checked
def open_far(server: str, model: str) -> FarBundle | FarCollection:
    """Return a generator, or a collection, of a server.

    It is given to `pidgan.apply` as a bundle is.

    Args:
        server: Address of the server, "http://host:8000". A user and a password in it
            are for a proxy before the server; so is a token in the environment
            variable PIDGAN_SERVER_TOKEN.
        model: Name of a model, or of a collection, perhaps with a version: "kaon/2".

    Raises:
        PidganError: The server cannot be reached, or has no such model.

    Example:
        >>> kaon = open_far("http://localhost:8000", "kaon")        # doctest: +SKIP
        >>> pidgan.apply({"Kplus": kaon}, "a.root", "b.root")       # doctest: +SKIP
    """
    return _open(Connection(server), model)


def open_tracks(
    server: str, tracks: Mapping[str, Any]
) -> dict[str, FarBundle | FarCollection]:
    """Return the generators of tracks, whose names on a server are given."""
    connection = Connection(server)
    for track, name in tracks.items():
        if not isinstance(name, str):
            raise TypeError(
                f"{track}: got a {type(name).__name__}, expected the name of a model "
                "on the server"
            )
    return {track: _open(connection, name) for track, name in tracks.items()}


def _open(connection: Connection, given: str) -> FarBundle | FarCollection:
    name, _, version = given.partition("/")
    listed = connection.get("/v2/models")
    models, collections = (
        [str(n) for n in listed.get(k) or ()] for k in ("models", "collections")
    )
    if name in collections and not version:
        return _open_collection(connection, name)
    if name not in models:
        known = [*models, *collections]
        raise PidganError(
            f"{connection.url} has no model {brief(name)}, only {', '.join(known)}"
            f"{nearest(name, known)}"
        )
    return _open_bundle(connection, name, version)


def _open_bundle(connection: Connection, name: str, version: str) -> FarBundle:
    place = f"/v2/models/{urllib.parse.quote(name, safe='')}"
    if version:
        place += f"/versions/{urllib.parse.quote(version, safe='')}"
    content = connection.get(f"{place}/card")
    where = f"{connection.url}{place}"
    try:
        card = Card.from_json(json.dumps(content["card"]), where=where)
        widest = max(len(card.inputs), card.n_noise, len(card.targets))
        most = int(content["most_bytes"]) // (4 * widest)
        version, sha256 = str(content["version"]), str(content["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise PidganError(f"{where}/card: {one_line(error)}") from error
    return FarBundle(
        card=card,
        sha256=sha256,
        name=name,
        version=version,
        address=f"{connection.url}/v2/models/{name}/versions/{version}",
        call_rows=max(1, min(CALL_ROWS, most)),
        _connection=connection,
    )


def _open_collection(connection: Connection, name: str) -> FarCollection:
    place = f"/v2/collections/{urllib.parse.quote(name, safe='')}"
    content = connection.get(place)
    where = f"{connection.url}{place}"
    try:
        found = Content.model_validate(content["content"])
        models = [str(model) for model in content["models"]]
    except (KeyError, TypeError, ValueError) as error:
        raise PidganError(f"{where}: {one_line(error)}") from error
    bundles = [_open_bundle(connection, model, "") for model in models]
    for member, bundle in zip(found.bundles, bundles, strict=True):
        if bundle.sha256 != member.sha256:
            raise PidganError(
                f"{where}: model {bundle.name!r} has sha256 {bundle.sha256}, expected "
                f"{member.sha256}"
            )
    return FarCollection(content=found, path=where, bundles=tuple(bundles))


def _parsed(url: str) -> urllib.parse.SplitResult:
    """Return the parts of an address of HTTP."""
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_right &= parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:
        is_right = False
    if not is_right or not url.isascii() or not url.isprintable():
        raise PidganError(
            f"server is {brief(url)}, expected an address such as http://host:8000"
        )
    return parts


def _headers(parts: urllib.parse.SplitResult) -> dict[str, str]:
    """Return headers for a proxy that asks who is there."""
    if parts.username is not None:
        pair = (parts.username, parts.password or "")
        text = ":".join(map(urllib.parse.unquote, pair))
        return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}
    token = os.environ.get(TOKEN, "")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _close(links: list[http.client.HTTPConnection]) -> None:
    """Close connections and forget them."""
    while links:
        links.pop().close()


def _is_unknown(error: OSError) -> bool:
    """Return whether the name of a host is not known."""
    return type(error).__name__ == "gaierror"
