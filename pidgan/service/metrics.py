"""What a server counts, in the text format of Prometheus."""

from dataclasses import dataclass
from typing import Any

from pidgan.errors import PidganError

SERVE_HINT = (
    "{} is missing: install the dependencies of the service, pip install '.[serve]' in "
    "the source tree"
)

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
"""Edges of the bins of durations."""

ROWS = (1, 4, 16, 64, 256, 1024, 2048, 4096, 16384, 65536, 262144)
"""Edges of the bins of numbers of rows."""

LABELS = ("model", "version", "protocol")


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Counters of a server; each server has its own registry."""

    registry: Any
    requests: Any
    seconds: Any
    rows: Any
    open: Any
    block_rows: Any
    block_requests: Any

    def text(self) -> bytes:
        """Return all numbers in the text format of Prometheus."""
        from prometheus_client import generate_latest

        return bytes(generate_latest(self.registry))

    def count_block(self, rows: int, requests: int) -> None:
        """Count a block of rows that were generated together."""
        self.block_rows.observe(rows)
        self.block_requests.observe(requests)


def start_metrics() -> Metrics:
    """Return new counters; a PidganError says that the library is missing."""
    try:
        import prometheus_client as library
    except ModuleNotFoundError as error:
        raise PidganError(SERVE_HINT.format(error.name)) from error
    registry = library.CollectorRegistry()
    return Metrics(
        registry=registry,
        requests=library.Counter(
            "pidgan_requests",
            "Requests by model, protocol and status.",
            (*LABELS, "status"),
            registry=registry,
        ),
        seconds=library.Histogram(
            "pidgan_request_seconds",
            "Time from the whole request to the reply.",
            LABELS,
            buckets=SECONDS,
            registry=registry,
        ),
        rows=library.Counter(
            "pidgan_rows",
            "Rows of answered requests.",
            LABELS,
            registry=registry,
        ),
        open=library.Gauge(
            "pidgan_open_requests", "Requests in work.", registry=registry
        ),
        block_rows=library.Histogram(
            "pidgan_block_rows",
            "Rows that were generated together.",
            buckets=ROWS,
            registry=registry,
        ),
        block_requests=library.Histogram(
            "pidgan_block_requests",
            "Requests that shared a block of rows.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        ),
    )
