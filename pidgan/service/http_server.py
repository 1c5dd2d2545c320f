"""The open inference protocol over HTTP, by aiohttp."""

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from pidgan.arguments import brief
from pidgan.bundle.triton import member_names
from pidgan.errors import nearest
from pidgan.service import messages
from pidgan.service.messages import JSON_LENGTH, Message, RequestError
from pidgan.service.models import ServedModel
from pidgan.service.service import SMALL_JSON, SMALL_TENSORS, Service

HEAD_BYTES = 2**16
"""Bytes that a request may have beside its tensors."""

WINDOWS = {"gzip": 31, "deflate": 15}
"""Kinds of compressed requests, and what zlib calls them."""

READ_SECONDS = 60
"""Longest time in which a client sends a request."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def http_application(service: Service) -> web.Application:
    """Return the application that answers all paths of the protocol."""
    pages = _Pages(service)
    size = service.most_bytes + HEAD_BYTES
    app = web.Application(client_max_size=size, middlewares=[_in_json])
    one = "/v2/models/{name}"
    for path in (one, f"{one}/versions/{{version}}"):
        app.router.add_get(path, pages.model)
        app.router.add_get(f"{path}/ready", pages.model_ready)
        app.router.add_get(f"{path}/card", pages.card)
        app.router.add_post(f"{path}/infer", pages.infer)
    app.router.add_get("/v2", pages.server)
    app.router.add_get("/v2/health/live", pages.live)
    app.router.add_get("/v2/health/ready", pages.ready)
    app.router.add_get("/v2/models", pages.models)
    app.router.add_post("/v2/repository/index", pages.index)
    app.router.add_get("/v2/collections/{name}", pages.collection)
    app.router.add_get("/metrics", pages.metrics)
    return app


@web.middleware
async def _in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into JSON of one line."""
    try:
        return await handler(request)
    except RequestError as error:
        again = {"Retry-After": "1"} if error.status == 503 else {}
        return _json({"error": str(error)}, status=error.status, headers=again)
    except web.HTTPNotFound:
        text = f"no such path {brief(request.path)}; paths begin with /v2 or /metrics"
        return _json({"error": text}, status=404)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        text = f"{request.method} is not allowed here, only {allowed}"
        return _json({"error": text}, status=405)
    except web.HTTPException as error:
        return _json({"error": error.reason}, status=error.status)


class _Pages:
    """The functions that answer the paths."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def server(self, _: web.Request) -> web.Response:
        return _json(self.service.metadata())

    async def live(self, _: web.Request) -> web.Response:
        return _json({"live": True})

    async def ready(self, _: web.Request) -> web.Response:
        is_ready = self.service.is_ready
        return _json({"ready": is_ready}, status=200 if is_ready else 503)

    async def models(self, _: web.Request) -> web.Response:
        models = self.service.models
        listed = [*models.by_name]
        return _json({"models": listed, "collections": [*models.collections]})

    async def index(self, _: web.Request) -> web.Response:
        found = self.service.models.all
        return _json(
            [
                {"name": m.name, "version": str(m.version), "state": "READY"}
                for m in found
            ]
        )

    def _find(self, request: web.Request) -> ServedModel:
        version = request.match_info.get("version", "")
        return self.service.models.find(request.match_info["name"], version)

    async def model(self, request: web.Request) -> web.Response:
        return _json(model_metadata(self.service, self._find(request)))

    async def model_ready(self, request: web.Request) -> web.Response:
        self._find(request)
        return await self.ready(request)

    async def card(self, request: web.Request) -> web.Response:
        found = self._find(request)
        content = {
            "name": found.name,
            "version": str(found.version),
            "sha256": found.bundle.sha256,
            "most_bytes": self.service.most_bytes,
            "card": json.loads(found.bundle.card.to_json()),
        }
        return _json(content)

    async def collection(self, request: web.Request) -> web.Response:
        name, known = request.match_info["name"], self.service.models.collections
        if name not in known:
            listed = ", ".join(known) or "none"
            close = nearest(name[:100], known)
            text = f"no collection {brief(name)}, only {listed}{close}"
            raise RequestError(text, status=404)
        content = known[name].content.model_dump(mode="json", by_alias=True)
        return _json({"content": content, "models": member_names(known[name])})

    async def metrics(self, _: web.Request) -> web.Response:
        text = self.service.metrics.text()
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return web.Response(body=text, headers={"Content-Type": kind})

    async def infer(self, request: web.Request) -> web.Response:
        async def read() -> Message:
            body = await _body(request, self.service.most_bytes)
            length = request.headers.get(JSON_LENGTH)
            # With bytes of tensors, the JSON is short.
            if len(body) < (SMALL_JSON if length is None else SMALL_TENSORS):
                return messages.read_request(body, length)
            return await asyncio.to_thread(messages.read_request, body, length)

        version = request.match_info.get("version", "")
        model, message, tensors = await self.service.answer(
            request.match_info["name"], version, "http", read
        )
        head = {
            "model_name": model.name,
            "model_version": str(model.version),
            "parameters": self.service.parameters(model),
        }
        size = sum(array.nbytes for array in tensors.values())
        if size < (SMALL_TENSORS if message.is_binary("targets") else SMALL_JSON):
            body, length = messages.write_reply(message, tensors, head)
        else:
            body, length = await asyncio.to_thread(
                messages.write_reply, message, tensors, head
            )
        if length is None:
            return web.Response(body=body, content_type="application/json")
        return web.Response(
            body=body,
            content_type="application/octet-stream",
            headers={JSON_LENGTH: str(length)},
        )


def model_metadata(service: Service, model: ServedModel) -> dict[str, Any]:
    """Return what a server says of a model, as JSON has it."""
    versions = service.models.by_name[model.name]
    return {
        "name": model.name,
        "versions": [str(number) for number in versions],
        "platform": model.platform,
        "inputs": _ports(model.inputs),
        "outputs": _ports(model.outputs),
        "parameters": service.parameters(model),
    }


def _ports(ports: dict[str, tuple[str, list[int]]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "datatype": datatype, "shape": shape}
        for name, (datatype, shape) in ports.items()
    ]


async def _body(request: web.Request, most: int) -> bytes:
    """Return the body of a request, or raise if it is too large or does not come."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(most) from None
    except TimeoutError:
        text = f"the request did not come within {READ_SECONDS} s"
        raise RequestError(text, status=408) from None
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding not in WINDOWS:
        known = ", ".join(WINDOWS)
        raise RequestError(f"Content-Encoding is {brief(encoding)}, expected {known}")
    return await asyncio.to_thread(_unpacked, body, encoding, most)


def _unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """Return what is compressed, of which no more than the limit is ever there."""
    unpack = zlib.decompressobj(WINDOWS[encoding])
    try:
        found = unpack.decompress(body, most + HEAD_BYTES + 1)
    except zlib.error as error:
        raise RequestError(f"the body is not {encoding}: {error}") from None
    if len(found) > most + HEAD_BYTES:
        raise _too_large(most)
    if not unpack.eof or unpack.unused_data:
        raise RequestError(f"the body is not one whole {encoding} stream")
    return found


def _too_large(most: int) -> RequestError:
    text = f"the request is too large, expected at most {most} bytes"
    return RequestError(text, status=413)


def _json(
    content: Any, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.json_response(content, status=status, headers=headers)
