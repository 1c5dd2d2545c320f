"""A bundle as one C99 file that needs nothing but the C library.

The code works on blocks of rows, for speed, and on single rows, for LHCb's stand-alone
simulation.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pidgan.arguments import checked
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.bundle_file import TOLERANCE, read_self_test
from pidgan.bundle.c_operators import translate
from pidgan.bundle.c_writer import Constants, array_text
from pidgan.errors import BundleError
from pidgan.files.writing import writing_file

BLOCK_ROWS = 32  # number of rows in a block, whose values stay in the first cache

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_KEYWORDS = frozenset(
    (
        *("auto", "break", "case", "char", "const", "continue", "default", "do"),
        *("double", "else", "enum", "extern", "float", "for", "goto", "if", "inline"),
        *("int", "long", "main", "register", "restrict", "return", "short", "signed"),
        *("sizeof", "static", "struct", "switch", "typedef", "union", "unsigned"),
        *("void", "volatile", "while"),
    )
)


@checked
def export_c(
    bundle: Bundle | str | Path,
    path: str | Path,
    *,
    name: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a bundle as a C99 file with the functions NAME, NAME_row and NAME_batch.

    `float *NAME(float *output, const float *input, const float *noise)` is the entry
    point that LHCb's stand-alone simulation loads (L. Anderlini, M. Barbetti et al.,
    SQLamarr, `GenerativePlugin`); `NAME_row` is the same without a result, `NAME_batch`
    takes many rows. All numbers are in the units of the card, noise is standard normal.
    Rows with an input that is not finite give NaN. Nothing is allocated and there is no
    state: the functions may run in several threads at once. The macro
    `PIDGAN_SELF_TEST` adds a `main` that runs the self-test of the card.

    Args:
        bundle: Bundle from `open_bundle`, or its path.
        path: Path of the file, which ends in ".c".
        name: Name of the entry point; the default is the stem of the file.
        overwrite: Whether an existing file is replaced.

    Returns:
        Path of the file.

    Raises:
        BundleError: The name is not possible in C, or the graph is too large.
        NtupleError: The file exists, or it cannot be written.

    Example:
        >>> export_c(open_bundle("kaon.onnx"), "kaon.c")          # doctest: +SKIP
        PosixPath('kaon.c')
    """
    source = partial(c_source, open_bundle(bundle))
    return write_c(path, name, source, overwrite=overwrite)


def write_c(
    path: str | Path,
    name: str | None,
    source: Callable[[str], str],
    *,
    overwrite: bool,
) -> Path:
    """Write the C file that `source` gives for a name, by default that of the file."""
    path = Path(path)
    if path.suffix != ".c":
        raise BundleError(f"{path}: the name of a C file ends in .c")
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII) if name is None else name
    with writing_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(source(name), encoding="ascii")
    return path


def c_source(bundle: Bundle, name: str) -> str:
    """Return the text of the C99 file of a bundle."""
    constants, functions = Constants(), dict[str, str]()
    own = {"NAME": name, "PRE": ""}
    own |= translate_bundle(bundle, constants, functions)
    shared = {
        "CONSTANTS": constants.text(),
        "FUNCTIONS": "\n".join(functions.values()),
        "ROWS": str(BLOCK_ROWS),
    }
    file, section = template("generator.c"), template("generator_bundle.c")
    check_name(
        name,
        file.partition("#include")[2] + section,
        *(own[key] for key in ("BLOCK", "ROW")),
        *shared.values(),
    )
    parts = {
        "BUNDLE": filled(section, own),
        "SELF_TEST": filled(template("generator_test.c"), own),
    }
    return filled(file, own | shared | parts)


def template(name: str) -> str:
    """Return the text of a template of this room."""
    return (Path(__file__).parent / name).read_text(encoding="ascii")


def filled(text: str, fill: Mapping[str, str]) -> str:
    """Return a template with its places filled."""
    return re.sub(r"@(\w+)@", lambda match: fill[match[1]], text)


def check_name(name: str, *taken: str) -> None:
    """Raise a BundleError if a function of a file cannot have a name."""
    if (
        not _IDENTIFIER.match(name)
        or name in _KEYWORDS
        or re.search(rf"\b{name}\b", "\n".join(taken))
    ):
        raise BundleError(
            f"{name!r} is no name for a C function, or the file has it already; choose "
            "another name with --name"
        )


def translate_bundle(
    bundle: Bundle, constants: Constants, functions: dict[str, str], pre: str = ""
) -> dict[str, str]:
    """Return what fills the templates of a bundle; add what bundles of a file share.

    `pre` begins the names of what a bundle of several has for itself.
    """
    graph = bundle.graph
    if any(value.dtype == "float64" for value in graph.values.values()):
        raise BundleError(
            f"{bundle.path}: family {bundle.card.family!r} computes in double "
            "precision, expected single precision for a C file"
        )
    try:
        block, row = (
            translate(graph.nodes, graph.values, constants, rows=rows)
            for rows in (BLOCK_ROWS, 1)
        )
    except ValueError as error:
        raise BundleError(f"{bundle.path}: {error}") from error
    functions |= block[1] | row[1]
    card = bundle.card
    return {
        "BLOCK": block[0],
        "ROW": row[0],
        "CARD": _comment(bundle),
        "N_CONDITIONS": str(len(card.conditions)),
        "N_NOISE": str(card.n_noise),
        "N_TARGETS": str(len(card.targets)),
        "TEST_ARRAYS": _self_test(bundle, pre),
    }


def _comment(bundle: Bundle) -> str:
    """Return the card without the self-test, as text that cannot end a comment."""
    content = json.loads(bundle.card.to_json())
    content.pop("self_test", None)
    text = json.dumps(content, indent=1, sort_keys=True)
    # These escapes mean the same in JSON, and cannot end or continue a comment.
    for found, written in (("/", "\\u002f"), ("?", "\\u003f")):
        text = text.replace(found, written)
    return f"sha256 of the bundle: {bundle.sha256}\n\n{text}"


def _self_test(bundle: Bundle, pre: str) -> str:
    test = read_self_test(bundle.card, bundle.graph, str(bundle.path))
    arrays = [
        array_text(f"{pre}test_{name}", rows) for name, rows in vars(test).items()
    ]
    rows = len(test.targets)
    sizes = (
        f"enum {{ {pre}test_rows = {rows}, {pre}test_excused = {test.excused} }};\n"
        f"static const double {pre}test_tolerance = {TOLERANCE};"
    )
    return "\n".join([*arrays, sizes])
