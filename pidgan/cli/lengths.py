"""Options that say how long a training lasts."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from pidgan.cli.options import reads


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


def check_length(given: Mapping[str, Any]) -> None:
    """Raise a click.UsageError if there is a budget and a number of steps."""
    if given["budget"] is not None and given["steps"] is not None:
        raise click.UsageError("give --budget or --steps, not both")
