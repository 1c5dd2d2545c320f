"""The open inference protocol over gRPC, by grpcio.

The messages are those of tritonclient, which follow the protocol of KServe.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pidgan.errors import PidganError
from pidgan.service.messages import (
    MOST_TENSORS,
    NAMES,
    Array,
    Message,
    RequestError,
    check_shape,
    from_bytes,
    from_numbers,
)
from pidgan.service.metrics import SERVE_HINT
from pidgan.service.models import ServedModel
from pidgan.service.service import Service

SERVICE = "inference.GRPCInferenceService"

CONTENTS = {
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
}
"""Field of the contents of a tensor, by its type."""

CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
"""Codes of gRPC, by the status of HTTP."""


def check_grpc() -> None:
    """Raise a PidganError if a library is missing."""
    try:
        import grpc  # noqa: F401
        from tritonclient.grpc import service_pb2  # noqa: F401
    except ImportError as error:
        name = error.name or "tritonclient[grpc]"
        raise PidganError(f"{SERVE_HINT.format(name)}, or --no-grpc") from error


def grpc_server(service: Service) -> Any:
    """Return a server of grpc.aio without a port; `check_grpc` comes first."""
    import grpc
    from tritonclient.grpc import service_pb2 as messages

    most = service.most_bytes + 2**16
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", -1),
            # Otherwise a second server would share the port.
            ("grpc.so_reuseport", 0),
        ]
    )
    calls = _Calls(service, messages)
    functions = {
        "ServerLive": calls.live,
        "ServerReady": calls.ready,
        "ModelReady": calls.model_ready,
        "ServerMetadata": calls.server,
        "ModelMetadata": calls.model,
        "RepositoryIndex": calls.index,
        "ModelInfer": calls.infer,
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _in_codes(function),
            request_deserializer=getattr(messages, f"{name}Request").FromString,
            response_serializer=getattr(messages, f"{name}Response").SerializeToString,
        )
        for name, function in functions.items()
    }
    generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
    server.add_generic_rpc_handlers((generic,))
    return server


def _in_codes(
    function: Callable[[Any], Awaitable[Any]],
) -> Callable[[Any, Any], Awaitable[Any]]:
    """Return a function that turns every RequestError into a status of gRPC."""
    import grpc

    async def answer(request: Any, context: Any) -> Any:
        try:
            return await function(request)
        except RequestError as error:
            code = getattr(grpc.StatusCode, CODES.get(error.status, "UNKNOWN"))
            await context.abort(code, str(error))

    return answer


class _Calls:
    """The functions that answer the calls."""

    def __init__(self, service: Service, messages: Any) -> None:
        self.service, self.messages = service, messages

    async def live(self, _: Any) -> Any:
        return self.messages.ServerLiveResponse(live=True)

    async def ready(self, _: Any) -> Any:
        return self.messages.ServerReadyResponse(ready=self.service.is_ready)

    async def model_ready(self, request: Any) -> Any:
        self.service.models.find(request.name, request.version)
        return self.messages.ModelReadyResponse(ready=self.service.is_ready)

    async def server(self, _: Any) -> Any:
        return self.messages.ServerMetadataResponse(**self.service.metadata())

    async def model(self, request: Any) -> Any:
        found = self.service.models.find(request.name, request.version)
        versions = self.service.models.by_name[found.name]
        kind = self.messages.ModelMetadataResponse
        return kind(
            name=found.name,
            versions=[str(number) for number in versions],
            platform=found.platform,
            inputs=_ports(kind, found.inputs),
            outputs=_ports(kind, found.outputs),
        )

    async def index(self, _: Any) -> Any:
        kind = self.messages.RepositoryIndexResponse
        models = [
            kind.ModelIndex(name=m.name, version=str(m.version), state="READY")
            for m in self.service.models.all
        ]
        return kind(models=models)

    async def infer(self, request: Any) -> Any:
        async def read() -> Message:
            return _read(request)

        model, message, tensors = await self.service.answer(
            request.model_name, request.model_version, "grpc", read
        )
        return self._reply(model, message, tensors)

    def _reply(
        self, model: ServedModel, message: Message, tensors: Mapping[str, Array]
    ) -> Any:
        kind = self.messages.ModelInferResponse
        reply = kind(
            model_name=model.name, model_version=str(model.version), id=message.id
        )
        for name, value in self.service.parameters(model).items():
            reply.parameters[name].string_param = str(value)
        for name, array in tensors.items():
            datatype = NAMES[array.dtype]
            reply.outputs.add(name=name, datatype=datatype, shape=array.shape)
            reply.raw_output_contents.append(array.tobytes())
        return reply


def _ports(kind: Any, ports: dict[str, tuple[str, list[int]]]) -> list[Any]:
    return [
        kind.TensorMetadata(name=name, datatype=datatype, shape=shape)
        for name, (datatype, shape) in ports.items()
    ]


def _read(request: Any) -> Message:
    """Read a request; a RequestError says what is wrong with it."""
    tensors: dict[str, Array] = {}
    raw = list(request.raw_input_contents)
    if len(request.inputs) > MOST_TENSORS:
        text = f"{len(request.inputs)} inputs, expected at most {MOST_TENSORS}"
        raise RequestError(text)
    if raw and len(raw) != len(request.inputs):
        raise RequestError(
            f"raw_input_contents has {len(raw)} parts, expected one for each of "
            f"{len(request.inputs)} inputs, or none"
        )
    for number, given in enumerate(request.inputs):
        name = f"input {given.name[:255]!r}"
        if given.name in tensors:
            raise RequestError(f"{name} is there twice")
        shape = check_shape(name, list(given.shape))
        if raw:
            data = from_bytes(name, given.datatype, shape, raw[number])
        else:
            part = CONTENTS.get(given.datatype, "fp32_contents")
            values = list(getattr(given.contents, part))
            data = from_numbers(name, given.datatype, shape, values)
        tensors[given.name] = data
    return Message(
        tensors=tensors,
        parameters={k: _value(k, v) for k, v in request.parameters.items()},
        id=request.id,
        wanted=tuple(output.name for output in request.outputs) or None,
    )


def _value(name: str, parameter: Any) -> str | int | bool | float:
    """Return the value of a parameter."""
    kind = parameter.WhichOneof("parameter_choice")
    if kind is None:
        raise RequestError(f"parameter {name!r} has no value")
    value: str | int | bool | float = getattr(parameter, kind)
    return value
