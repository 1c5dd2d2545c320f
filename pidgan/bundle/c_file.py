"""A bundle as one C99 file that needs nothing but the C library.

The code works on blocks of rows, for speed, and on single rows, for LHCb's stand-alone
simulation.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from pidgan.arguments import checked
from pidgan.bundle.agreement import MOVED, TOLERANCE
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.bundle_file import read_self_test
from pidgan.bundle.c_cells import cells_text
from pidgan.bundle.c_graph import Translated, translate
from pidgan.bundle.c_header import header_text
from pidgan.bundle.c_regions import LANES, find_regions
from pidgan.bundle.c_writer import LINE, Constants, array_text
from pidgan.errors import BundleError
from pidgan.files.writing import writing_files

BLOCK_ROWS = 32
"""Number of rows in a block, whose values stay in a near cache."""

LARGE_BLOCK_ROWS = 8
"""The same for a graph whose arrays are too large for a stack: those of showers."""

MAX_STACK = 2**20
"""Bytes of local arrays; the stack of a thread has some MiB."""

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

    A header of the same name, which ends in ".h", declares them for C and C++.

    `float *NAME(float *output, const float *input, const float *noise)` is the entry
    point that LHCb's stand-alone simulation loads (L. Anderlini, M. Barbetti et al.,
    SQLamarr, `GenerativePlugin`); `NAME_row` is the same without a result, `NAME_batch`
    takes many rows. All numbers are in the units of the card, noise is standard normal.
    Rows with an input that is not finite give NaN. There is no state: the functions may
    run in several threads at once. The macro `PIDGAN_SELF_TEST` adds a `main` that runs
    the self-test of the card.

    Nothing is allocated, unless the arrays of a graph are too large for a stack, as
    those of showers with a thousand cells are. `NAME_row_in` and `NAME_batch_in`, which
    every file of showers has, take memory for them as a further argument,
    `NAME_scratch` bytes for each thread. The functions without it ask `malloc` in each
    call, and give NaN if there is none. Parts of a shower without energy take no time
    where a family says which these are, as `shower_tree` does.

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
    """Write the C file that `source` gives for a name, and its header.

    The name is by default that of the file.
    """
    path = Path(path)
    if path.suffix != ".c":
        raise BundleError(f"{path}: the name of a C file ends in .c")
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII) if name is None else name
    files = [path, path.with_suffix(".h")]
    with writing_files(files, overwrite=overwrite) as temporary:
        text = source(name)
        for file, content in zip(
            temporary, (text, header_text(name, text)), strict=True
        ):
            file.write_text(content, encoding="ascii")
    return path


def c_source(bundle: Bundle, name: str) -> str:
    """Return the text of the C99 file of a bundle."""
    constants, functions = Constants(), dict[str, str]()
    own = {"NAME": name, "PRE": ""}
    rows = block_rows([bundle])
    own |= translate_bundle(bundle, own, constants, functions, rows=rows)
    shared = {
        "CONSTANTS": constants.text(),
        "FUNCTIONS": "\n".join(functions.values()),
        "ROWS": str(rows),
        "LANES": str(LANES),
    }
    file = template("generator.c")
    check_name(
        name,
        file.partition("#include")[2] + template("generator_bundle.c"),
        *(own[key] for key in ("BLOCK", "ROW", "BATCH")),
        *shared.values(),
    )
    parts = {
        "MEMORY": memory_text(rows),
        "BUNDLE": filled(template("generator_bundle.c"), own),
        "SELF_TEST": filled(template("generator_test.c"), own),
    }
    return filled(file, own | shared | parts)


def block_rows(bundles: Sequence[Bundle]) -> int:
    """Return the number of rows of a block in the file of some bundles."""
    if any(_has_regions(bundle) for bundle in bundles):
        return LARGE_BLOCK_ROWS
    blocks = (_translate(b, Constants(), BLOCK_ROWS, MAX_STACK) for b in bundles)
    return BLOCK_ROWS if all(b.scratch == 0 for b in blocks) else LARGE_BLOCK_ROWS


def _has_regions(bundle: Bundle) -> bool:
    """Whether a row alone is faster than one in a block, as most of it is empty."""
    return bool(find_regions(bundle.graph.nodes, bundle.graph.values))


def memory_text(rows: int) -> str:
    """Return the end of a sentence that says where the memory is, for a comment."""
    if rows == BLOCK_ROWS:
        return ", and\n * nothing is allocated."
    return (
        "; the\n * functions that end in _in need memory that no other thread uses at "
        "the same\n * time, the others ask malloc for it in each call."
    )


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
    bundle: Bundle,
    names: Mapping[str, str],
    constants: Constants,
    functions: dict[str, str],
    *,
    rows: int,
) -> dict[str, str]:
    """Return what fills the templates of a bundle; add what bundles of a file share.

    `names` has the name of the generator, and PRE, which begins the names of what a
    bundle of several has for itself.
    """
    pre = names["PRE"]
    # In a file with large blocks, every bundle takes its memory from the caller.
    stack = MAX_STACK if rows == BLOCK_ROWS else 0
    counts = (1,) if _has_regions(bundle) else (1, rows)
    found = [_translate(bundle, constants, n, stack, pre) for n in counts]
    for one in found:
        functions |= one.functions
    card = bundle.card
    sizes = {
        "N_CONDITIONS": len(card.inputs),
        "N_NOISE": card.n_noise,
        "N_TARGETS": len(card.targets),
    }
    fill = {
        "ROW": found[0].body,
        "PARTS": "\n".join(one.parts for one in found),
        "CARD": _comment(bundle),
        "CELLS": cells_text(card, names["NAME"]),
        "TEST_ARRAYS": _self_test(bundle, pre),
        **{name: str(size) for name, size in sizes.items()},
    }
    fill |= _memory(names, found, rows * sum(sizes.values()), cells=card.has_cells)
    own = {**names, **fill}
    if len(found) == 1:
        batch = filled(template("generator_batch_of_rows.c"), own)
        return fill | {"BLOCK": "", "BATCH": batch}
    block = filled(template("generator_block.c"), own | {"BODY": found[1].body})
    return fill | {
        "BLOCK": block,
        "BATCH": filled(template("generator_batch.c"), own),
    }


def _translate(
    bundle: Bundle, constants: Constants, rows: int, stack: int, pre: str = ""
) -> Translated:
    graph = bundle.graph
    if any(value.dtype == "float64" for value in graph.values.values()):
        raise BundleError(
            f"{bundle.path}: family {bundle.card.family!r} computes in double "
            "precision, expected single precision for a C file"
        )
    try:
        return translate(
            graph.nodes,
            graph.values,
            constants,
            rows=rows,
            name=f"{pre}{'row' if rows == 1 else 'block'}",
            stack=stack,
        )
    except ValueError as error:
        raise BundleError(f"{bundle.path}: {error}") from error


def _memory(
    names: Mapping[str, str], found: Sequence[Translated], numbers: int, *, cells: bool
) -> dict[str, str]:
    """Return what fills the templates where arrays are local, or in memory of a caller.

    A block has some numbers of conditions, noise and targets beside its arrays.
    Functions for cells can always be called with memory.
    """
    pre = names["PRE"]
    sizes = [f"{pre}N_{kind} * ROWS" for kind in ("CONDITIONS", "NOISE", "TARGETS")]
    local = ", ".join(f"{v}[{size}]" for v, size in zip("xzy", sizes, strict=True))
    head = template("generator_scratch_head.c")
    if not found[0].scratch:
        empty = ("SCRATCH_HEAD", "SCRATCH_CALLS", "PARAMETER", "ARGUMENT", "IN")
        fill = {**dict.fromkeys(empty, ""), "BATCH_ARRAYS": f"    float {local};"}
        if cells:
            fill["SCRATCH_HEAD"] = filled(head, {**names, "SCRATCH": "0"})
            fill["SCRATCH_CALLS"] = filled(template("generator_no_scratch.c"), names)
        return fill
    before = -(-4 * numbers // LINE) * LINE if len(found) > 1 else 0
    size = str(before + max(one.scratch for one in found))
    return {
        "SCRATCH_HEAD": filled(head, {**names, "SCRATCH": size}),
        "SCRATCH_CALLS": filled(template("generator_scratch.c"), names),
        "PARAMETER": ", void *restrict scratch",
        "ARGUMENT": ", scratch",
        "IN": "_in",
        "BATCH_ARRAYS": (
            f"    float *const x = scratch, *const z = x + {sizes[0]};\n"
            f"    float *const y = z + {sizes[1]};\n"
            f"    scratch = (char *)scratch + {before};"
        ),
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
        array_text(f"{pre}test_{name}", getattr(test, name))
        for name in ("conditions", "noise", "targets")
    ]
    rows = len(test.targets)
    sizes = (
        f"enum {{ {pre}test_rows = {rows}, {pre}test_excused = {test.excused} }};\n"
        f"enum {{ {pre}test_cells = {int(test.cells)} }};\n"
        f"static const double {pre}test_tolerance = {TOLERANCE};\n"
        f"static const double {pre}test_moved = {MOVED};"
    )
    return "\n".join([*arrays, sizes])
