"""The group of all verbs, and what they share: paths that are opened, lines printed."""

import contextlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

import pidgan
from pidgan.cli.verbs import Verbs, shown
from pidgan.notebook import count


@click.group(
    cls=Verbs,
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="pidgan")
def cli() -> None:
    """Learn the PID response of a detector from calibration data, judge it, apply it.

    \b
    The usual order:
      prepare -> train -> validate -> export -> systematics    (PID expert)
      apply -> efficiency                                      (analyst)
    FILE is a ROOT or Parquet file, FILE:TREE, a pattern in quotes, or an address.
    """


def fail(message: str, *, code: int) -> None:
    """Print one line and leave."""
    tell(f"pidgan: error: {' '.join(message.split())}")
    sys.exit(code)


def tell(line: str, *, nl: bool = True) -> None:
    """Print a line to the standard error; where that is closed, nothing is."""
    with contextlib.suppress(OSError):
        click.echo(line, nl=nl, err=True)


def note(line: str, *, nl: bool = True) -> None:
    """Print a line to the standard error, which a quiet command leaves out."""
    if not shown().quiet:
        tell(line, nl=nl)


def note_excluded(dataset: "pidgan.Dataset") -> None:
    """Say where nothing is trained, if the definition of a sample has `exclude`."""
    from pidgan.sample.definition import excluded_text

    if excluded := excluded_text(dataset.sample):
        rows = dataset.info.get("rows", {}).get("excluded", 0)
        judged = "; `pidgan validate --part excluded` judges them"
        note(
            f"nothing is trained in {excluded}: `exclude` of the definition keeps "
            f"{count(rows, 'rows')} out{judged if dataset.sample.cells else ''}"
        )


def result(text: str, *, as_json: bool, **content: Any) -> None:
    """Print a result: its text, or its content as one JSON document."""
    dumped = json.dumps(content, default=str, allow_nan=False) if as_json else text
    click.echo(dumped)


def open_generator(path: Path) -> Any:
    """Open a model folder or a bundle; the library for bundles is loaded here."""
    from pidgan.bundle import opening

    return opening.open_generator(path)


def open_given(path: Path) -> Any:
    """Open a model folder or a bundle, a corrector as what it is."""
    from pidgan.bundle import opening

    return opening.open_given(path)


def open_generators(path: Path) -> list[Any]:
    """Open a model or a bundle, or all of a folder of members."""
    from pidgan.training.members import member_paths

    return [open_generator(one) for one in member_paths(path) or [path]]


def open_rows(path: Path | None) -> Any:
    """Open a dataset or a reference file, if one is given."""
    from pidgan.files.tables import read_table

    if path is None:
        return None
    return pidgan.Dataset.open(path) if path.is_dir() else read_table(path)


def open_pairs(texts: Iterable[str]) -> list[tuple[Any, Any]]:
    """Open the generators of GENERATOR[=ROWS] texts, and their rows where given."""
    pairs = []
    for text in texts:
        path, _, rows = (text, "", "") if Path(text).exists() else text.partition("=")
        opened = open_generator(Path(path))
        pairs.append((opened, open_rows(Path(rows) if rows else None)))
    return pairs


def shows_progress() -> bool:
    """Return whether the running command shows its progress."""
    return not shown().quiet
