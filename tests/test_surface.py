"""The public surface: its names are frozen, and a name means the same everywhere.

The surface is what docs/reference/api.md lists, and the command line. A change that is
meant is written into the frozen list by

    python tests/test_surface.py > tests/surface.txt
"""

import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from command_line import commands

from pidgan.cli import VERBS

TESTS = Path(__file__).parent
API = TESTS.parent / "docs" / "reference" / "api.md"
DIRECTIVE = re.compile(
    r"^\.\. auto(?:function|class|exception):: ([\w.]+)(?:\(\))?\n"
    r"(?:   :members: (.*)\n)?",
    re.MULTILINE,
)

# Words that have more than one meaning in the surface, with the reason.
SEVERAL_MEANINGS = {
    "chunk": "entries at a time; apply chooses it from the memory",
    "columns": "named arrays, numbers of columns, or names by condition",
    "conditions": "values of conditions, or where an ntuple has them (Conditions)",
    "cuts": "cuts, with names of their columns where there is a matrix",
    "frame": "a table, or a frame of axes",
    "helix": "a helix in the formulas of several libraries",
    "mass": "values of a mass, or a branch with its shapes",
    "misid": "generators of other species with rows, or with their maps",
    "model": "anything that can be exported, or a model alone",
    "name": "the name of whatever the function is about",
    "noise": "noise of a model in training, or of a bundle",
    "output": "rows in memory need none",
    "path": "a file, or what it holds where that may be open already",
    "progress": "what is called gets what the stage knows",
    "reference": "rows of a table, or a dataset too where it can be split",
    "sample": "a definition, or its name or path too where it can be loaded",
    "settings": "settings of one family, of several, or as a value",
    "steps": "updates of a training that has no budget",
    "targets": "values of targets, or their branches",
    "values": "numbers",
    "weights": "numbers, or a branch where the rows are in a file",
    "suffix": "that of corrected columns by default, or none",
}
# Options, of any verb or of one, without an argument of the same name: the reason.
OF_THE_COMMAND_LINE = {
    "train cluster": "a process joins others before tensorflow is loaded",
    "train rank": "a process joins others before tensorflow is loaded",
    "as_json": "how the result is printed",
    "quiet": "how progress is printed",
    "verbose": "how errors are printed",
    "report": "a page is written by another function",
    "overwrite": "results are written by their own method",
    "output": "results are written by their own method",
    "scheduler": "client, of an address",
    "device": "the choice of a process, by use_device",
    "no_correction": "correction=False",
    "transfer": "maps are multiplied by another function",
    "transfer_in_bins": "maps are multiplied by another function",
    "closure mass_range": "part of mass",
    "closure mass_unit": "part of mass",
    "closure signal": "part of mass",
    "closure background": "part of mass",
    "campaign status": "shown by another function",
    "campaign dry_run": "shown by another function",
    "train members": "models are trained by train_members",
    "train settings_file": "settings, of a file",
    "samples from_pidcalib": "definitions are made by other functions",
    "samples output": "definitions are made by other functions",
    "samples every": "all are made by another function",
    "systematics misid": "a page is written by another function",
    "systematics simulation": "a generator, by open_simulation",
    "systematics vary": "scales of variations",
    "export kind": "a C file is written by export_c",
    "export name": "a C file is written by export_c",
    "export dataset": "the report of validate",
    "export model_version": "a repository is written by export_triton",
    "export showers": "showers are written by write_showers",
    "export seed": "showers are written by write_showers",
    "efficiency latex": "results are written by their own method",
    "efficiency over": "results are divided by each other",
    "efficiency ratios": "results are divided by each other",
    "efficiency columns": "a friend tree is written by another function",
    "efficiency eigenvariations": "a friend tree is written by another function",
    "efficiency replicas": "a friend tree is written by another function",
    "efficiency seed": "a friend tree is written by another function",
    "efficiency pyhf": "a workspace is written by another function",
    "efficiency matrix": "a matrix is made by another function",
    "efficiency tracks": "maps, by track",
    "efficiency tables": "maps, which may be tables",
    "plot tracks": "one track",
    "table plot": "results are drawn by another function",
    "efficiency plot": "results are drawn by another function",
    "quantile-map branch": "values, of a branch",
    "quantile-map data_branch": "values, of a branch",
    "quantile-map weights": "simulation_weights, of a branch",
}
# Differences of an option between verbs, with the reason.
DIFFERENT_OPTIONS = {
    ("entries", "default"): "each simulation has its own size",
    ("output", "default"): "the demo has a name of its own",
    ("output", "help"): "each verb writes something else",
    ("output", "required"): "a table need not be written",
    ("budget", "help"): "the demo has a shorter one",
    ("scales", "help"): "a ratio of data to simulation, or an uncertainty",
    ("key", "help"): "what is the same by event: noise, or a fluctuation",
    ("settings", "help"): "settings of one family or of several",
    ("settings", "metavar"): "settings of one family or of several",
    ("species", "type"): "a time projection chamber sees no photons",
    ("suffix", "default"): "corrected columns have one",
    ("suffix", "help"): "of new columns, or of generated ones",
    ("species", "help"): "a particle that is simulated, or that of a control sample",
    ("species", "metavar"): "one of a few, or any particle",
    ("species", "required"): "a dataset has a species of its own",
    ("tracks", "help"): "bundles, or maps",
    ("scheduler", "help"): "files, or tasks",
    ("dry_run", "help"): "a mapping, or tasks",
    ("tracks", "metavar"): "bundles, or maps",
    ("tracks", "required"): "maps may have their tracks with them",
    ("workers", "help"): "what workers share: files, two trainings, or tasks",
}
# One spelling of several arguments, with the reason.
SHARED_SPELLINGS = {
    "--cut": "a working point is that of one cut",
    "--variable": "a quantile map is that of one variable",
    "--track": "a control sample has one track",
}


def listed() -> Iterator[tuple[str, Any]]:
    """Yield names and objects of the reference, methods with their class."""
    for path, members in DIRECTIVE.findall(API.read_text(encoding="utf-8")):
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        yield name, found
        for member in filter(None, (part.strip() for part in members.split(","))):
            method = inspect.getattr_static(found, member)
            yield f"{name}.{member}", getattr(method, "__func__", method)


def text_of(name: str, found: Any) -> str:
    """Return a line of the frozen list."""
    if inspect.isclass(found):
        fields = [f for f in getattr(found, "__annotations__", ()) if f[0] != "_"]
        return f"class {name}: {', '.join(fields)}"
    if not callable(found):
        return f"{name}"
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(found).parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    return f"{name}{inspect.Signature(plain)}"


def surface() -> str:
    """Return the frozen list as it is now."""
    import pidgan

    lines = [f"pidgan.{name}" for name in sorted(pidgan.__all__)]
    return "\n".join([*lines, *(text_of(*pair) for pair in listed())]) + "\n"


def plain(annotation: Any) -> frozenset[str]:
    """Return the alternatives of an annotation, modules and None left out."""
    text = inspect.formatannotation(annotation).strip("'\"")
    parts = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text).split(" | ")
    return frozenset(part for part in parts if part != "None")


def arguments() -> dict[str, dict[str, inspect.Parameter]]:
    """Return the parameters of the surface by argument and function."""
    found: dict[str, dict[str, inspect.Parameter]] = defaultdict(dict)
    for name, function in listed():
        if callable(function) and not inspect.isclass(function):
            for parameter in inspect.signature(function).parameters.values():
                found[parameter.name][name] = parameter
    return found


def options() -> dict[str, dict[str, click.Option]]:
    """Return the options by argument and verb."""
    found: dict[str, dict[str, click.Option]] = defaultdict(dict)
    for verb, command in commands():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                found[str(parameter.name)][verb] = parameter
    return found


pytestmark = pytest.mark.skipif(not API.is_file(), reason="the reference is not here")


def test_surface_is_frozen() -> None:
    pytest.importorskip("tensorflow")
    frozen = (TESTS / "surface.txt").read_text(encoding="utf-8")
    assert surface() == frozen, __doc__


def test_an_argument_means_the_same_everywhere() -> None:
    pytest.importorskip("tensorflow")
    wrong = {}
    for argument, uses in arguments().items():
        if argument in SEVERAL_MEANINGS or argument in ("self", "cls"):
            continue
        types = {plain(use.annotation) for use in uses.values()} - {frozenset(["Any"])}
        empty = inspect.Parameter.empty
        defaults = {repr(u.default) for u in uses.values() if u.default is not empty}
        if len(types) > 1 or len(defaults) > 1:
            wrong[argument] = {name: str(use) for name, use in uses.items()}
    assert not wrong


def test_words_of_several_meanings_are_used() -> None:
    pytest.importorskip("tensorflow")
    assert not set(SEVERAL_MEANINGS) - set(arguments())


@pytest.mark.parametrize("argument", options())
def test_an_option_means_the_same_in_every_verb(argument: str) -> None:
    uses = options()[argument]
    first = next(iter(uses.values())).to_info_dict()
    for verb, option in uses.items():
        for key, value in option.to_info_dict().items():
            if (argument, key) not in DIFFERENT_OPTIONS:
                assert value == first[key], (verb, key)


def test_a_spelling_is_of_one_option() -> None:
    spellings: dict[str, set[str]] = defaultdict(set)
    for argument, uses in options().items():
        for option in uses.values():
            spellings[option.opts[0]].add(argument)
    shared = {name for name, found in spellings.items() if len(found) > 1}
    assert shared == set(SHARED_SPELLINGS)


@pytest.mark.parametrize(
    ("verb", "argument"),
    [
        (verb, str(parameter.name))
        for verb, command in commands()
        for parameter in command.params
        if isinstance(parameter, click.Option)
    ],
)
def test_options_are_arguments(verb: str, argument: str) -> None:
    """An option has the name of the argument, in the singular if it is repeated."""
    if {argument, f"{verb} {argument}"} & set(OF_THE_COMMAND_LINE):
        return
    spellings = {text.lstrip("-") for text in options()[argument][verb].opts}
    name = {"settings": "set", "from_model": "from"}.get(
        argument, argument.replace("_", "-")
    )
    assert spellings & {name, name.removesuffix("s"), name.removesuffix("es")}
    if " " in verb:
        return
    pytest.importorskip("tensorflow")
    module, _, function = VERBS[verb].rpartition(".")
    found = inspect.signature(getattr(importlib.import_module(module), function))
    is_condition = argument in ("branches", "units", "scales", "quantile_maps")
    assert argument in found.parameters or (
        is_condition and "conditions" in found.parameters
    )


if __name__ == "__main__":
    print(surface(), end="")
