"""Verbs as click knows them: by role, with the options that all of them have."""

import sys
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import click

from pidgan.errors import PidganWarning

ROLES = {
    "Start": ("demo", "simulate"),
    "Prepare and learn": (
        *("samples", "prepare", "families", "train", "train-corrector"),
        *("tune", "compare", "validate", "refine", "export", "campaign"),
    ),
    "Look": ("inspect", "plot", "report"),
    "Apply": ("collect", "quantile-map", "apply", "correct", "serve"),
    "Efficiencies": (
        *("table", "systematics", "closure", "working-point", "efficiency"),
    ),
}
"""Verbs by what they are for, in the usual order; `--help` follows it."""

OLD_SPELLINGS: dict[str, dict[str, str]] = {
    "rich": {"--mode": "--decay"},
    "spectrometer": {"--mode": "--decay"},
    "train": {"--recipe": "--family"},
    "systematics": {"--also": "--other", "--scale": "--vary"},
    "working-point": {"--misid": "--max-misid"},
    "refine": {"--steps": "--ratio-steps"},
    "quantile-map": {"--branch": "--variable"},
    "apply": {"--part": "--files-part"},
}
"""Spellings of version 0.1, whose names have another meaning elsewhere, by verb."""
GONE = "0.3"  # version without the old spellings


@dataclass
class Shown:
    """How much a command prints beside its result."""

    quiet: bool = False
    verbose: bool = False
    began: float = field(default_factory=time.perf_counter)

    def end(self) -> str:
        """Return what a verbose command says at its end: time and memory."""
        parts = [f"{time.perf_counter() - self.began:.1f} s"]
        parts.append(f"{time.process_time():.1f} s of CPU time")
        if sys.platform != "win32":
            import resource

            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            unit = 2**20 if sys.platform == "darwin" else 2**10
            parts.append(f"at most {peak / unit:.0f} MiB of memory")
        return f"pidgan: {', '.join(parts)}"


def shown() -> Shown:
    """Return how much the running command prints."""
    context = click.get_current_context(silent=True)
    found = context.find_object(Shown) if context is not None else None
    return found or Shown()


def _switch(names: str, attribute: str, text: str) -> click.Option:
    """Return an option of every verb that changes how much is printed."""

    def callback(context: click.Context, _: Any, given: bool) -> None:
        if given:
            setattr(context.ensure_object(Shown), attribute, True)

    return click.Option(
        names.split(),
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=callback,
        help=text,
    )


class Verb(click.Command):
    """A verb; `-q` and `-v` mean the same in all of them."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += [
            _switch(
                "-q --quiet",
                "quiet",
                "Print no progress: only warnings and the result.",
            ),
            _switch(
                "-v --verbose",
                "verbose",
                "Print more: tracebacks of errors, warnings of libraries, and at the "
                "end time and memory.",
            ),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words of a command, with new spellings in place of old ones."""
        old = OLD_SPELLINGS.get(self.name or "", {})
        words = list(args)
        end = words.index("--") if "--" in words else len(words)
        for i, word in enumerate(words[:end]):
            name, equals, value = word.partition("=")
            if name in old:
                words[i] = f"{old[name]}{equals}{value}"
                warnings.warn(
                    f"{ctx.command_path}: {name} is the old spelling of {old[name]}, "
                    f"and goes with version {GONE}",
                    PidganWarning,
                    stacklevel=2,
                )
        if not ctx.resilient_parsing:
            self._refuse_repeated(ctx, words)
        return super().parse_args(ctx, words)

    def _refuse_repeated(self, ctx: click.Context, words: list[str]) -> None:
        """Raise if an option with one value is given twice: the first would be lost."""
        seen = set()
        for option in self.make_parser(ctx).parse_args(args=list(words))[2]:
            if not isinstance(option, click.Option):
                continue
            if option.name in seen and not (option.multiple or option.is_flag):
                join = "; join cuts by &" if option.metavar == "CUT" else ""
                raise click.UsageError(
                    f"{option.opts[0]} is given twice, expected one{join}", ctx
                )
            seen.add(option.name)


class Verbs(click.Group):
    """A group of verbs, whose help lists them by role and with whole sentences."""

    command_class = Verb
    group_class = type  # a group within a group is one of the same kind

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs in the usual order."""
        ordered = [name for names in ROLES.values() for name in names]
        known = [name for name in ordered if name in self.commands]
        return known + [name for name in self.commands if name not in known]

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the verbs, each role in a section of its own."""
        left = self.list_commands(ctx)
        for role, names in (*ROLES.items(), ("Commands", tuple(left))):
            rows = [
                (name, self.commands[name].get_short_help_str(limit=400))
                for name in names
                if name in left
            ]
            left = [name for name in left if name not in names]
            if rows:
                with formatter.section(role):
                    formatter.write_dl(rows)
