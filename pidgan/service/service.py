"""The service behind both protocols: a request in, tensors out, everything counted."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pidgan.application.request import package_version
from pidgan.errors import PidganError
from pidgan.service.batching import Batcher
from pidgan.service.messages import Array, Message, RequestError
from pidgan.service.metrics import Metrics
from pidgan.service.models import Models, ServedModel

EXTENSIONS = ("binary_tensor_data", "model_repository", "parameters")

MOST_OPEN = 512
"""Largest number of requests in work; others are told to come again."""

SMALL_JSON, SMALL_TENSORS = 64 * 1024, 4 * 1024 * 1024
"""Bytes of numbers in JSON, and of tensors, up to which a message is read or written at
once: below, to hand it to a thread takes longer."""


@dataclass(kw_only=True)
class Service:
    """All that answers requests.

    Attributes:
        models: The models.
        batcher: Threads that generate.
        metrics: What is counted.
        most_bytes: Largest size of a request, and of its reply.
        is_ready: Whether new requests are taken.
    """

    models: Models
    batcher: Batcher
    metrics: Metrics
    most_bytes: int
    is_ready: bool = True
    open: int = field(default=0, init=False)

    def metadata(self) -> dict[str, Any]:
        """Return what a server says of itself."""
        version = package_version("pidgan")
        return {"name": "pidgan", "version": version, "extensions": [*EXTENSIONS]}

    def parameters(self, model: ServedModel) -> dict[str, Any]:
        """Return what each reply says of its model."""
        return {"sha256": model.bundle.sha256}

    async def answer(
        self,
        name: str,
        version: str,
        protocol: str,
        read: Callable[[], Awaitable[Message]],
    ) -> tuple[ServedModel, Message, dict[str, Array]]:
        """Return the model of a request, the request and the tensors of its reply.

        `read` gets the request; whatever is wrong becomes a RequestError, and is
        counted.
        """
        began, status, n_rows = time.perf_counter(), 200, 0
        labels = {"model": "", "version": "", "protocol": protocol}
        self.open += 1
        self.metrics.open.inc()
        try:
            model = self.models.find(name, version)
            labels |= {"model": model.name, "version": str(model.version)}
            if not self.is_ready or self.open > MOST_OPEN:
                why = "is stopping" if not self.is_ready else "has too many requests"
                raise RequestError(f"the server {why}; try again", status=503)
            message = await read()
            tensors = await self._generate(model, message)
            n_rows = len(tensors["targets"])
            wanted = message.wanted or tuple(tensors)
            return model, message, {k: tensors[k] for k in wanted}
        except RequestError as error:
            status = error.status
            raise
        except asyncio.CancelledError:
            status = 499  # the client has gone, as nginx counts it
            raise
        except Exception as error:
            # The text of the project's own errors names what is wrong in the bundle.
            known = isinstance(error, PidganError)
            text = str(error) if known else f"internal error, {type(error).__name__}"
            status = 500
            raise RequestError(text, status=500) from error
        finally:
            self.open -= 1
            self.metrics.open.dec()
            self.metrics.requests.labels(**labels, status=str(status)).inc()
            if status == 200:
                seconds = time.perf_counter() - began
                self.metrics.seconds.labels(**labels).observe(seconds)
                self.metrics.rows.labels(**labels).inc(n_rows)

    async def _generate(self, model: ServedModel, message: Message) -> dict[str, Array]:
        """Return the tensors of a reply."""

        def read() -> Any:
            return model.read(message, most_bytes=self.most_bytes)

        size = sum(array.nbytes for array in message.tensors.values())
        asked = read() if size < SMALL_TENSORS else await asyncio.to_thread(read)
        found = await asyncio.wrap_future(self.batcher.submit(asked.work))
        reply: dict[str, Array] = asked.reply(found)
        return reply
