"""Options that say how long a training lasts."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from pidgan.cli.group import note
from pidgan.cli.options import COUNT, reads

if TYPE_CHECKING:
    from pidgan.training.joining import Place


def parse_duration(text: str) -> str | float:
    """Turn a duration such as 20m into seconds, and check one such as 20m cpu."""
    from pidgan.training.budget import Duration

    return Duration.parse(text).stored


def parse_steps(text: str) -> int | str:
    """Turn a number of steps, or a plan, into what `train` takes."""
    from pidgan.training.budget import length

    for part in text.split("+"):
        length(None, part)
    return int(text) if text.isdigit() else text


def budget(default: str) -> Callable[..., Any]:
    """Return the option for the time of one training."""
    return click.option(
        "--budget",
        metavar="DURATION",
        callback=reads(parse_duration),
        help="Wall-clock time of one training, e.g. 20m, kept with a complete schedule "
        "on a slower or faster machine too; '20m cpu' is time of the processor.  "
        f"[default: {default}]",
    )


steps = click.option(
    "--steps",
    metavar="N",
    callback=reads(parse_steps),
    help="Number of training steps, instead of a budget; or the plan on the card of a "
    "model whose budget changed it on the way, e.g. 1043,521:548. Family cramer adds "
    "its share `play` on top.",
)
resume = click.option(
    "--resume",
    is_flag=True,
    help="Continue a training from its last checkpoint to its own number of steps, or "
    "for what is left of its budget.",
)


def shared(command: Any) -> Any:
    """Add the options of a training that several processes share."""
    processes = click.option(
        "--processes",
        type=COUNT,
        metavar="N",
        help="Number of processes on this machine that share the rows of each step.",
    )
    cluster = click.option(
        "--cluster",
        metavar="HOST:PORT,...",
        default="",
        show_default=False,
        callback=reads(lambda text: tuple(filter(None, text.split(",")))),
        help="Addresses of all processes that share the rows of each step, on several "
        "machines. Each runs this command, with its --rank; the first one writes.  "
        "[default: those of TF_CONFIG]",
    )
    rank = click.option(
        "--rank",
        type=click.IntRange(min=0),
        metavar="N",
        help="Number of this process in the cluster, from 0.",
    )
    for option in (rank, cluster, processes):
        command = option(command)
    return command


def join_others(
    processes: int | None,
    cluster: tuple[str, ...],
    rank: int | None,
    *,
    alone: Mapping[str, Any],
) -> "Place | None":
    """Join the other processes of a training, if there are some.

    Options that are given `alone` have no others.
    """
    from pidgan.training import joining

    place = joining.place_of(cluster, rank)
    for option in [key for key, value in alone.items() if value is not None]:
        if place is not None or (processes or 1) > 1:
            raise click.UsageError(
                f"give {option} or processes that share a training, not both"
            )
    if place is None:
        return None
    if processes is not None:
        raise click.UsageError("give --processes or a cluster, not both")
    note(f"process {place.rank} of {len(place.addresses)}: it waits for the others")
    joining.join(place)
    return place


def check_length(given: Mapping[str, Any]) -> None:
    """Raise a click.UsageError if there is a budget and a number of steps."""
    if given["budget"] is not None and given["steps"] is not None:
        raise click.UsageError("give --budget or --steps, not both")
