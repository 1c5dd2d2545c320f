"""The verb that serves bundles to other programs."""

from collections.abc import Sequence
from typing import Any

import click

from pidgan.cli import options
from pidgan.cli.group import cli, result

PORT = click.IntRange(0, 65535)


@cli.command(epilog="Example: pidgan serve kaon.onnx pion.onnx")
@click.argument(
    "bundles", metavar="[NAME[/VERSION]=]BUNDLE...", nargs=-1, required=True
)
@click.option(
    "--host",
    default="127.0.0.1",
    help="Address that is listened at: 127.0.0.1 can be reached from this machine "
    "only, 0.0.0.0 from everywhere. There are no passwords.",
)
@click.option(
    "--http-port", type=PORT, default=8000, help="Port of HTTP; 0: a free one."
)
@click.option(
    "--grpc-port", type=PORT, default=8001, help="Port of gRPC; 0: a free one."
)
@click.option("--no-grpc", is_flag=True, help="Answer HTTP only.")
@click.option(
    "--threads",
    type=options.COUNT,
    help="Number of threads in each process.  [default: its share of the cores]",
)
@click.option(
    "--max-request",
    type=click.IntRange(1, 2000),
    default=64,
    metavar="MIB",
    help="Largest size of a request and of its reply, in MiB.",
)
@options.device
@options.as_json
def serve(
    bundles: Sequence[str],
    as_json: bool,
    **given: Any,
) -> None:
    """Serve bundles to other programs, by the protocol KServe v2 over HTTP and gRPC.

    BUNDLE is a bundle, a collection (.toml), a folder of bundles, or a model
    repository. A model has the name of its file; bundles of one name are its versions.
    The server finishes requests in work when it is told to end (SIGTERM, Ctrl-C).
    """
    from pidgan.service import server

    def tell(found: server.Addresses) -> None:
        result(
            found.text(),
            as_json=as_json,
            http=found.http,
            grpc=found.grpc,
            models=found.models,
        )

    server.serve(list(bundles), tell=tell, **given)
