"""Options that several verbs share, each defined once, and how their texts are read."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from pidgan.bounds import BOUNDS
from pidgan.bundle.shipped import shipped_names
from pidgan.cli.completion import binning_names, completes, setting_names
from pidgan.errors import PidganError
from pidgan.files.places import check_end, check_folder_name, file_problem
from pidgan.files.recognition import KINDS, missing, other_kind, recognise
from pidgan.files.trees import is_remote
from pidgan.files.writing import refuse_existing


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Show a ValueError about an argument as click shows its own."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


class _PathType(click.Path):
    """A path that is not empty, which would be the working directory.

    With `kinds`, keys of `pidgan.files.recognition.KINDS`, one of these lies there:
    what is nothing, or another thing, is refused before any work.
    """

    def __init__(self, *kinds: str) -> None:
        super().__init__(path_type=Path)
        self.kinds = kinds

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not str(value):
            self.fail("it is empty, expected a path", param, ctx)
        path = Path(str(super().convert(value, param, ctx)))
        if self.kinds:
            check_kind(path, *self.kinds, param=param, ctx=ctx)
        return path


def check_kind(path: str | Path, *kinds: str, param: Any, ctx: Any) -> None:
    """Raise a PidganError if nothing lies at a path, or nothing of these kinds."""
    if str(path) in shipped_names() and {"bundle", "map"} & set(kinds):
        return
    where = f"{param.opts[0]}: " if isinstance(param, click.Option) else ""
    if file_problem(path) == "no such file":
        raise PidganError(f"{where}{missing(path, *kinds)}")
    problem = other_kind(path, *kinds)
    if problem:
        raise PidganError(f"{where}{problem}{_order(recognise(path), param, ctx)}")


def _order(kind: str, param: Any, ctx: click.Context) -> str:
    """Return the arguments of a command, if another one of them takes this kind."""
    arguments = [p for p in ctx.command.params if isinstance(p, click.Argument)]
    if not any(kind in getattr(p.type, "kinds", ()) for p in arguments if p != param):
        return ""
    names = " ".join(p.make_metavar(ctx) for p in arguments)
    return f"; the order is: {ctx.command_path} {names}"


class _Whole(click.IntRange):
    """A whole number within the bounds of an argument of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(*BOUNDS[name])

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            bounds = f"from {self.min} to {self.max}"
            self.fail(f"{value!r}, expected a whole number {bounds}", param, ctx)


COUNT = _Whole("steps")
PATH, SETTINGS = _PathType(), _PathType("settings")
DATASET = _PathType("dataset")
ROWS = _PathType("dataset", "parquet")
MODEL = _PathType("model")
GENERATOR = _PathType("model", "bundle")
BUNDLE, MAP, CONTROL = map(_PathType, ("bundle", "map", "control"))
GENERATORS = _PathType("model", "members", "bundle", "bundles")
ANY_GENERATOR = _PathType(*GENERATORS.kinds, "collection")
ANY_GENERATOR_OR_DATASET = _PathType(*ANY_GENERATOR.kinds, "dataset")
INSPECTED = _PathType("bundle", "collection", "map")
GENERATOR_OR_DATASET = _PathType("model", "bundle", "dataset")
SAMPLES_OF_PIDCALIB, CAMPAIGN = map(_PathType, ("pidcalib samples", "campaign"))


def parse_pairs(texts: Iterable[str], form: str = "NAME=VALUE") -> dict[str, str]:
    """Turn NAME=VALUE texts into a dictionary; `form` is what a message asks for."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise click.UsageError(f"{text!r}: expected {form}")
        if name in pairs:
            raise click.UsageError(f"{name!r} is given twice")
        pairs[name] = value
    return pairs


def parse_number(text: str) -> int | float:
    """Turn a text into a number, a whole one if possible."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise click.UsageError(f"{text!r} is not a number")


def parse_numbers(text: str) -> list[float]:
    """Turn NUMBER,NUMBER,... into a list."""
    return [float(parse_number(number)) for number in text.split(",")]


def parse_factors(texts: Iterable[str]) -> dict[str, int | float]:
    """Turn NAME=NUMBER texts into a dictionary."""
    return {name: parse_number(text) for name, text in parse_pairs(texts).items()}


def parse_binning(texts: Sequence[str]) -> str | dict[str, Any] | None:
    """Turn NAME, or several CONDITION=..., into a binning; None if there are none."""
    names = [text for text in texts if "=" not in text]
    if names and len(texts) > 1:
        raise click.UsageError(
            f"--binning {names[0]} cannot be combined with other --binning; give one "
            "name, or CONDITION=... for each condition"
        )
    if names:
        return names[0]
    found: dict[str, Any] = {}
    for name, value in parse_pairs(texts).items():
        if "," in value:
            found[name] = parse_numbers(value)
        else:
            found[name] = int(value) if value.isdigit() else value
    return found or None


def parse_fraction(text: str, expected: str) -> tuple[int, int]:
    """Turn I/N into two numbers, counted from 1."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if found is None:
        raise click.BadParameter(f"{text!r}: expected {expected}")
    return int(found[1]), int(found[2])


def reads(parse: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a callback of click that reads a text, or several, if any is given."""

    def callback(_: Any, __: Any, given: Any) -> Any:
        try:
            return None if given is None else parse(given)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def refuse_place(output: Path, *kinds: str) -> None:
    """Refuse a folder that holds something else before the work."""
    found = recognise(output)
    if found and found not in kinds:
        raise PidganError(
            f"{output} is {KINDS[found]}; choose another name for what is written"
        )


def is_new(context: click.Context, _: Any, path: Path | None) -> Path | None:
    """Refuse an existing output before the work, unless it may be replaced."""
    if path is not None:
        refuse_existing(path, overwrite=context.params["overwrite"])
    return path


def paths_of(*kinds: str) -> Callable[..., Any]:
    """Return a callback that reads NAME=PATH texts, and looks what lies there."""

    def callback(context: click.Context, param: Any, texts: Sequence[str]) -> Any:
        pairs = parse_pairs(texts, str(param.metavar))
        if context.params.get("server") is not None:
            return pairs  # names of models on a server
        for path in pairs.values():
            if not is_remote(path):
                check_kind(path, *kinds, param=param, ctx=context)
        return pairs

    return callback


def repeated(
    names: str, metavar: str, text: str, parse: Any = None, **settings: Any
) -> Callable[..., Any]:
    """Return an option of these names that can be repeated, as its help then says."""
    if parse is not None:
        settings["callback"] = reads(parse)
    settings["help"] = f"{text}; can be repeated.{settings.pop('more', '')}"
    return click.option(*names.split(), metavar=metavar, multiple=True, **settings)


def output(help_text: str, *ends: str, **changes: Any) -> Callable[..., Any]:
    """Return the option for an output, which may have a default or be left out.

    `ends` are those of the names of files; a folder is written if there are none.
    """

    def is_named(context: click.Context, param: Any, path: Path | None) -> Path | None:
        """Refuse a name that does not fit, and an existing output, before the work."""
        if path is not None:
            with usage_errors():
                check_end(path, ends) if ends else check_folder_name(path)
        return is_new(context, param, path) if refuses else path

    refuses = changes.pop("refuses", True)
    settings = {"required": True, "callback": is_named, "metavar": "PATH", **changes}
    return click.option("-o", "--output", type=PATH, help=help_text, **settings)


def entries(default: int) -> Callable[..., Any]:
    """Return the option for the size of a simulated sample."""
    help_text = "Number of simulated entries."
    kind = _Whole("n")
    return click.option("-n", "--entries", type=kind, default=default, help=help_text)


def species(*names: str) -> Callable[..., Any]:
    """Return the option for the species that a detector sees."""
    help_text, kind = "Particle that is simulated.", click.Choice(names)
    return click.option("--species", required=True, type=kind, help=help_text)


def settings(metavar: str, example: str) -> Callable[..., Any]:
    """Return the option for settings of families."""
    text = f"Setting of a family, e.g. {example}"
    own: Any = {"more": " `pidgan families NAME` lists them."}
    own["shell_complete"] = completes(setting_names)
    return repeated("--set settings", metavar, text, parse_pairs, **own)


def key(help_text: str) -> Callable[..., Any]:
    """Return the option for the branches that identify an event."""
    return click.option(
        "--key",
        default="",
        metavar="BRANCH,...",
        callback=reads(lambda text: tuple(filter(None, text.split(",")))),
        help=help_text,
    )


def tracks(**changes: Any) -> Callable[..., Any]:
    """Return the option for the prefixes of tracks and their bundles or maps."""
    return click.option("--track", "tracks", multiple=True, **changes)


# Read before the others, as an output is refused where it exists.
overwrite = click.option(
    "--overwrite", is_flag=True, is_eager=True, help="Replace an existing output."
)
seed = click.option(
    "--seed",
    default=1,
    type=_Whole("seed"),
    help="Seed of all random numbers; the same seed repeats a run.",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON."
)


def _use_device(_: Any, __: Any, name: Any) -> None:
    """Choose where graphs are computed, and refuse a GPU that is not there."""
    if name is not None:
        from pidgan.bundle.devices import use_device

        use_device(name)


device = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda", "auto"]),
    callback=_use_device,
    is_eager=True,  # before a bundle is opened
    expose_value=False,
    help="Where generators are computed: on the processor, on a GPU of NVIDIA, or on a "
    "GPU where there is one.  [default: PIDGAN_DEVICE, else cpu]",
)
where = click.option(
    "--where",
    metavar="CUT",
    help="Cut that a track must pass to be generated, or to be counted in an "
    'efficiency, e.g. "{track}_PT > 500", "isMuon == 1 & charge == 1".',
)
binning = repeated(
    "--binning --bins binning",
    "NAME|CONDITION=...",
    "Bins in which efficiencies are given: a binning that ships, e.g. hadrons, or for "
    "each condition its edges, P=3e3,2e4,1e5, a number of bins of equal population, "
    "P=10, or a binning, P=hadrons",
    parse_binning,
    shell_complete=completes(binning_names),
)


def _generators(context: click.Context, param: Any, texts: Sequence[str]) -> Any:
    """Look at what GENERATOR[=ROWS] texts name, and return the texts."""
    for text in texts:
        path, _, rows = (text, "", "") if Path(text).exists() else text.partition("=")
        check_kind(path, *GENERATOR.kinds, param=param, ctx=context)
        if rows:
            check_kind(rows, *ROWS.kinds, param=param, ctx=context)
    return texts


def _cuts(texts: Sequence[str]) -> Sequence[str]:
    """Refuse what is no cut before the work; names are looked up later."""
    from pidgan.sample.cuts import parse_cut

    for text in texts:
        parse_cut(text)
    return texts


cuts = repeated("--cut cuts", "CUT", 'PID cut on targets, e.g. "RichDLLk > 0"', _cuts)
misid = repeated(
    "--misid",
    "GENERATOR[=ROWS]",
    "Model or bundle of a species to reject, and its dataset after '=', e.g. "
    "pion-model=pion. The report shows how often it passes the same cuts",
    callback=_generators,
)


def _report(context: click.Context, parameter: Any, path: Path | None) -> Path | None:
    """Fail before the work where a page cannot be written."""
    if path is not None:
        import pidgan.report.map_page  # noqa: F401
    return is_new(context, parameter, path)


report = click.option(
    "--report",
    type=PATH,
    metavar="DIR",
    callback=_report,
    help="New folder for report.html, a page with figures. Needs the training "
    "dependencies.",
)
weights = click.option(
    "--weights", metavar="BRANCH", help="Branch that holds weights, e.g. sWeights."
)
species_from = click.option(
    "--species-from",
    metavar="NAME",
    help="Branch {track}_NAME with the PDG id of each track, e.g. TRUEID; a bundle or "
    "map is used only for its own species.",
)
suffix = click.option(
    "--suffix", default="", help="Suffix of the names of generated columns."
)
reference = click.argument(
    "reference",
    metavar="[DATASET|REFERENCE]",
    required=False,
    type=ROWS,
)
generator = click.argument("generator", metavar="MODEL|BUNDLE", type=GENERATOR)
dataset = click.argument("dataset", type=DATASET)
files = click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE[:TREE]...",
    shell_complete=completes(lambda _: (), files=True),
)


_condition_options = (
    repeated(
        "--branch branches",
        "CONDITION=BRANCH",
        "Branch that holds a condition, for one track TRACK.CONDITION=BRANCH",
        parse_pairs,
    ),
    repeated(
        "--unit units",
        "CONDITION=UNIT",
        "Unit of a condition in the file, e.g. P=GeV",
        parse_pairs,
    ),
    repeated(
        "--scale scales",
        "CONDITION=FACTOR",
        "Known ratio of data to simulation for a condition, e.g. nTracks=1.15",
        parse_factors,
    ),
    repeated(
        "--quantile-map quantile_maps",
        "CONDITION=MAP.json",
        "Map of a condition from simulation to data, made by `pidgan quantile-map`",
        callback=paths_of("quantile map"),
    ),
)


def conditions(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where conditions are and how their values change.

    The command gets them as one argument, `conditions`.
    """

    @functools.wraps(command)
    def with_conditions(**options: Any) -> Any:
        from pidgan.application.conditions import Conditions

        names = ("branches", "units", "scales", "quantile_maps")
        given = {name: options.pop(name) for name in names}
        return command(conditions=Conditions(**given), **options)

    for option in reversed(_condition_options):
        with_conditions = option(with_conditions)
    return with_conditions
