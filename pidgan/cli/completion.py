"""Words that a shell completes: names of samples, families, settings and binnings."""

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem


def completes(
    names: Callable[[click.Context], Iterable[str]], *, files: bool = False
) -> Callable[..., list[CompletionItem]]:
    """Return what completes a word in a shell: names, and files if it may be one.

    In a list with commas, or after NAME=, the last word is completed.
    """

    def complete(ctx: click.Context, _: Any, incomplete: str) -> list[CompletionItem]:
        end = 1 + max(map(incomplete.rfind, ",="))
        start, word = incomplete[:end], incomplete[end:]
        found = [n for n in names(ctx) if n.startswith(word)]
        items = [CompletionItem(f"{start}{name}") for name in found]
        return items + ([CompletionItem(incomplete, type="file")] if files else [])

    return complete


def family_names(_: click.Context) -> Iterable[str]:
    """Return the names of families."""
    from pidgan.training.families import TABLE

    return TABLE


def sample_names(_: click.Context) -> Iterable[str]:
    """Return the names of the samples that ship."""
    from pidgan.sample.loading import list_samples

    return list_samples()


def setting_names(ctx: click.Context) -> Iterable[str]:
    """Return the settings of the family that the command names, or of all."""
    from pidgan.training.families import list_families

    chosen = ctx.params.get("family")
    found = [f for f in list_families() if chosen in (None, f.name)]
    return dict.fromkeys(f"{s.name}=" for f in found for s in f.settings)


def binning_names(_: click.Context) -> Iterable[str]:
    """Return the names of the binnings that ship."""
    from pidgan.sample.loading import list_binnings

    return list_binnings()
