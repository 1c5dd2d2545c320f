"""Requests to a server: good ones, and ones that are broken in any way."""

import json
import random
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pidgan.service.messages import JSON_LENGTH, Message, write_request

INFER = "/v2/models/demo-kaon/infer"


class Answer(NamedTuple):
    status: int
    body: bytes
    length: str | None

    @property
    def content(self) -> Any:
        return json.loads(self.body[: int(self.length)] if self.length else self.body)


def ask(
    url: str, body: bytes | None = None, method: str | None = None, **headers: str
) -> Answer:
    """Ask a server, without any client of its own."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return Answer(reply.status, reply.read(), reply.headers.get(JSON_LENGTH))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(), None)


def rows(n: int, seed: int = 1) -> np.ndarray:
    """Conditions P, ETA, nTracks of the shipped bundle."""
    rng = np.random.default_rng(seed)
    low, high = np.array([3e3, 1.8, 20.0]), np.array([9e4, 4.8, 400.0])
    return rng.uniform(low, high, (n, 3)).astype(np.float32)


def request(n: int = 5, **parameters: Any) -> dict[str, Any]:
    """A good request as JSON has it."""
    keys = list(range(n))
    return {
        "id": "a",
        "inputs": [
            {
                "name": "conditions",
                "datatype": "FP32",
                "shape": [n, 3],
                "data": rows(n).tolist(),
            },
            {"name": "keys", "datatype": "UINT64", "shape": [n], "data": keys},
        ],
        **({"parameters": parameters} if parameters else {}),
    }


def binary(n: int = 5) -> tuple[bytes, int]:
    """A good request with bytes."""
    tensors = {"conditions": rows(n), "keys": np.arange(n, dtype=np.uint64)}
    return write_request(Message(tensors=tensors, id="a"), ["targets"])


JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 7, 10**30, 1.5, "", "x", "FP64", "BYTES", "INT64", [], {}),
    *([[]], [None], [1], [[1, 2, 3]], [-1, 3], [5, 4], [10**12, 3], {"a": 1}, ["a"]),
    *("é" * 50, [[[[1]]]], [True], [float("nan")], 2**64, "keys", "noise", "targets"),
)


def _json_case(rng: random.Random) -> tuple[str, bytes, dict[str, str]]:
    """A request of JSON with something replaced, removed, added or repeated."""
    content = request()
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in list(items)[:6]:
            places.append((value, key))
            if isinstance(item, dict | list):
                walk(item)

    walk(content)
    holder, key = rng.choice(places)
    change = rng.choice(("replace", "replace", "remove", "repeat", "add"))
    if change == "replace":
        holder[key] = rng.choice(JUNK)
    elif change == "remove":
        del holder[key]
    elif isinstance(holder, list):
        holder.append(holder[key] if change == "repeat" else rng.choice(JUNK))
    else:
        holder[rng.choice(("parameters", "outputs", "data", "x"))] = rng.choice(JUNK)
    return INFER, json.dumps(content).encode(), {}


def _bytes_case(rng: random.Random) -> tuple[str, bytes, dict[str, str]]:
    """A request with bytes that are cut, longer, or changed in the JSON."""
    body, length = binary()
    text = str(length)
    how = rng.choice(("cut", "more", "length", "json", "size"))
    if how == "cut":
        body = body[: rng.randrange(len(body))]
    elif how == "more":
        body += bytes(rng.randrange(1, 99))
    elif how == "length":
        text = rng.choice(("-1", "x", "", "1e3", "9" * 30, "0", str(length + 1), "0x1"))
    elif how == "json":
        at = rng.randrange(length)
        body = body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
    else:
        head = json.loads(body[:length])
        head["inputs"][0]["parameters"]["binary_data_size"] = rng.choice(JUNK)
        dumped = json.dumps(head).encode()
        body, text = dumped + body[length:], str(len(dumped))
    return INFER, body, {JSON_LENGTH: text}


def _raw_case(rng: random.Random) -> tuple[str, bytes, dict[str, str]]:
    """A body that is no request at all, or a wrong place."""
    bodies = (
        *(b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 5000, b'{"a":' * 3000),
        *(b'{"inputs": ' + b"9" * 9000 + b"}", b'{"inputs": NaN}', bytes(2000)),
        *(b"\x1f\x8b" + bytes(50), json.dumps("x" * 99999).encode()),
    )
    paths = (
        *(INFER, "/v2/models/kaon/infer", "/v2/models/demo-kaon/versions/9/infer"),
        *(
            "/v2/models/%00/infer",
            "/v2/models//infer",
            "/infer",
            "/v2/models/%E9/infer",
        ),
        "/v2/models/" + "a" * 3000 + "/infer",
        "/v2/models/demo-kaon/versions/x/infer",
    )
    headers: dict[str, str] = rng.choice(
        ({}, {"Content-Encoding": "gzip"}, {"Content-Encoding": "deflate"})
    )
    return rng.choice(paths), rng.choice(bodies), headers


def broken(number: int) -> tuple[str, bytes, dict[str, str]]:
    """Path, body and headers of broken request number so and so.

    A few of them are good by chance.
    """
    rng = random.Random(number)
    makers: tuple[Callable[..., Any], ...] = (_json_case, _bytes_case, _raw_case)
    made: tuple[str, bytes, dict[str, str]] = rng.choice(makers)(rng)
    return made


def is_clean(answer: Answer) -> bool:
    """Return whether an answer is targets, or an error of one line in JSON."""
    if answer.status == 200:
        return "outputs" in answer.content
    error = answer.content["error"]
    return (
        400 <= answer.status < 500
        and bool(error)
        and "\n" not in error
        and "Traceback" not in error
        and len(error) < 1500
    )
