"""Run the command line within a test, and look at what it printed."""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click
import pytest

from pidgan.cli import cli, main

# Warnings, and the line of a stage that was done before the error.
NO_ERROR = r"pidgan: (warning: |(?!error: )\w+: .*\d s$)"

Run = Callable[..., "Result"]


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield verbs and their commands, those of groups too."""
    for verb, command in cli.commands.items():
        if isinstance(command, click.Group):
            for name, sub in command.commands.items():
                yield f"{verb} {name}", sub
        else:
            yield verb, command


@dataclass(frozen=True, kw_only=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> Result:
        monkeypatch.setattr("sys.argv", ["pidgan", *map(str, arguments)])
        code = 0
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
        captured = capsys.readouterr()
        return Result(code=code, out=captured.out, err=captured.err)

    return call


def one_line(result: Result, *texts: str) -> None:
    """Expect exit code 1 and one line of error that holds the texts."""
    errors = [line for line in result.err.splitlines() if line.strip()]
    errors = [line for line in errors if not re.match(NO_ERROR, line)]
    assert result.code == 1, result.err
    assert len(errors) == 1, result.err
    for text in texts:
        assert text in errors[0]
