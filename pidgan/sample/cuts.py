"""The one grammar of cuts: comparisons of named columns, never run as Python code.

Comparisons with `< <= > >= == !=`, in chains such as `0 < a < 1` too, of columns and
numbers combined with `+ - * /` and `abs()`, are joined with `&`, `|`, `!`, also written
`&&`, `||`, `~`, or `and`, `or`, `not`. As in ROOT, and unlike in Python, all three
spellings bind *weaker* than a comparison: `a > 0 & b > 1` needs no brackets. A column
of zeros and ones may stand alone: `isMuon & b > 1` is `isMuon == 1 & b > 1`. What else
a text may hold is said in `pidgan.sample.cut_syntax`.

A column is compared in the type in which it is stored, see `pidgan.sample.stored`;
everything that is computed is so in double precision.

A NaN, an infinity or a declared sentinel (-999, -1000) in any column of the cut fails
it, even if it is negated. Such rows stay in the denominator of an efficiency.
"""

import ast
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pidgan.arrays import BoolArray, FloatArray
from pidgan.errors import CutError, nearest
from pidgan.sample import stored
from pidgan.sample.cut_syntax import shown, syntax_tree, too_deep

#: Names of one and the same variable: the short name of PIDCalib, the branch in Run 1
#: and 2, the branch in Run 3. Calibration files write "probe_" before them. "Brunel_"
#: makes a name the variable of another fit.
SYNONYMS: tuple[tuple[str, ...], ...] = (
    *(
        (f"DLL{one}", f"PID{one}", f"PID_{one.upper()}")
        for one in ("K", "p", "mu", "e", "d")
    ),
    *(
        (f"ProbNN{one}", f"PROBNN_{one.upper()}")
        for one in ("k", "pi", "p", "mu", "e", "d", "ghost")
    ),
    ("isMuon", "IsMuon", "ISMUON"),
    ("isMuonTight", "IsMuonTight", "ISMUONTIGHT"),
    ("inMuonAcc", "InMuonAcc", "InMuon", "INMUON"),
    ("hasRich", "HasRich", "HASRICH"),
    ("trackcharge", "charge", "CHARGE"),
    ("nSPDhits", "nSPDHits"),
)
_FIRST = {name: group[0] for group in SYNONYMS for name in group}
#: Operators of the language of cuts, by their node in a syntax tree.
COMPARISONS: dict[type[ast.AST], stored.Operator] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
ARITHMETIC: dict[type[ast.AST], Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
}
_Sentinels = Mapping[str, Sequence[float]]


class Columns(Protocol):
    """Arrays (n,) by name: a DataFrame, or a mapping of names to arrays."""

    def __getitem__(self, name: Any, /) -> Any: ...

    def __contains__(self, name: Any, /) -> bool: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A parsed cut; make one with `parse_cut`.

    `canonical` is one spelling, with aliases resolved, of all texts that differ only in
    spaces, in brackets or in the spelling of `and`. `names` are the columns that the
    cut needs, in order of appearance, and `flags` those that stand alone.
    """

    text: str
    canonical: str
    names: tuple[str, ...]
    flags: tuple[str, ...] = ()
    expression: ast.expr = field(repr=False, compare=False)

    def passes(
        self, columns: Columns, sentinels: _Sentinels | None = None
    ) -> BoolArray:
        """Return which rows (n,) pass, never one with a NaN, infinity or sentinel.

        `sentinels` are the values of each column that mean "no measurement".
        """
        for name in self.names:
            if name not in columns:
                raise _unknown(self.text, name, list(columns))
        arrays = {name: _column(self.text, name, columns) for name in self.names}
        usable: BoolArray = np.ones(1, dtype=bool)
        for name, array in arrays.items():
            if array.dtype.kind == "f":
                usable = usable & np.isfinite(array)
            elif usable.shape != array.shape:
                usable = np.broadcast_to(usable, array.shape).copy()
            if missing := (sentinels or {}).get(name, ()):
                usable = usable & ~stored.equals_any(array, missing)
        for name in self.flags:
            self._check_flag(name, arrays[name], usable)
        with np.errstate(all="ignore"):
            result = _logical(self.text, self.expression, arrays, usable)
        return np.asarray(result & usable)

    def _check_flag(self, name: str, array: Any, usable: BoolArray) -> None:
        """Raise a CutError unless a column that stands alone holds zeros and ones."""
        wrong = usable & ~stored.equals_any(array, (0, 1))
        if array.dtype.kind != "b" and wrong.any():
            raise CutError(
                f"cut {shown(self.text)}: {name!r} stands without a comparison, and "
                f"has the value {array[wrong][0]:g}, expected 0 or 1; write for "
                f"example {name} > 0"
            )


def cut_texts(cuts: str | Iterable[str]) -> tuple[str, ...]:
    """Return one cut, or several, as a tuple of texts."""
    return (cuts,) if isinstance(cuts, str) else tuple(cuts)


def parse_cut(
    text: str,
    *,
    names: Iterable[str] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Cut:
    """Parse a cut such as "RichDLLk > 0 & P < 1e5".

    It is checked against the names of columns, if they are given. `aliases` has the
    column of each further name; `SYNONYMS` stand for each other wherever only one of
    them is in `names`. A CutError says which name is unknown, or which part is no
    comparison of columns and numbers.
    """
    if "{track}" in str(text):
        bare = str(text).replace("{track}_", "").replace("{track}", "")
        raise CutError(
            f"cut {shown(text)}: {{track}} is the prefix of a track in an ntuple, and "
            f"these rows have none; name the variable alone, {bare!r}"
        )
    known = None if names is None else list(names)
    tree = syntax_tree(text)
    try:
        _resolve(text, tree, known, aliases or {})
        used, flags = _names(tree), list[str]()
        tree = _compared(tree, flags)
        # Evaluated on no rows, to refuse an expression that is no cut.
        nothing: Any = dict.fromkeys(used, np.zeros(0))
        with np.errstate(all="ignore"):
            _logical(text, tree, nothing, np.zeros(0, dtype=bool))
    except RecursionError:
        raise too_deep(text) from None
    if not used:
        raise CutError(f"cut {shown(text)} names no variable, so it selects nothing")
    return Cut(
        text=text,
        canonical=ast.unparse(tree),
        names=tuple(dict.fromkeys(used)),
        flags=tuple(dict.fromkeys(flags)),
        expression=tree,
    )


def terms_of(cut: Cut) -> tuple[Cut, ...]:
    """Return the cuts that "and" joins, from left to right."""
    terms = []
    for node in joined_parts(ast.And, cut.expression):
        names, text = tuple(dict.fromkeys(_names(node))), ast.unparse(node)
        flags = tuple(name for name in cut.flags if name in names)
        terms.append(
            Cut(text=text, canonical=text, names=names, flags=flags, expression=node)
        )
    return tuple(terms)


def all_of(cuts: Iterable[Cut]) -> Cut:
    """Return the cut that all of several cuts, with resolved names, join to."""
    return parse_cut(" and ".join(f"({cut.canonical})" for cut in cuts))


def plain_name(name: str) -> str:
    """Return the one name that all synonyms of a variable have, without "probe_"."""
    return _plain(name)


def joined_parts(joint: type[ast.boolop], node: ast.expr) -> list[ast.expr]:
    """Return the parts that are joined, those of brackets inside included."""
    if isinstance(node, ast.BoolOp) and isinstance(node.op, joint):
        return [part for value in node.values for part in joined_parts(joint, value)]
    return [node]


def compared_values(
    cut: Cut, name: str, columns: Columns, sentinels: _Sentinels | None = None
) -> FloatArray:
    """Return the values (n,) that a cut compares with a name: `a - b` in `a - b > x`.

    The name must stand alone on one side of one comparison; it need not be a column.
    Values are NaN or infinite where a column has no value.
    """
    pairs = [
        pair
        for node in ast.walk(cut.expression)
        if isinstance(node, ast.Compare)
        for pair in itertools.pairwise([node.left, *node.comparators])
    ]
    found = [
        other
        for pair in pairs
        for side, other in (pair, pair[::-1])
        if isinstance(side, ast.Name) and side.id == name
    ]
    if len(found) != 1 or _names(cut.expression).count(name) != 1:
        raise CutError(
            f"cut {cut.text!r}: expected {name!r} alone on one side of one comparison, "
            f"for example 'RichDLLk > {name}'"
        )
    arrays: dict[str, Any] = {}
    for column in _names(found[0]):
        array = _column(cut.text, column, columns)
        missing = stored.equals_any(array, (sentinels or {}).get(column, ()))
        arrays[column] = np.where(missing, np.nan, array)
    with np.errstate(all="ignore"):
        return np.asarray(_number(cut.text, found[0], arrays), dtype=np.float64)


def _column(text: str, name: str, columns: Columns) -> Any:
    """Return a column as it is stored."""
    try:
        return stored.as_column(columns[name])
    except ValueError as error:
        raise CutError(f"cut {shown(text)}: column {name!r} {error}") from None


def _unknown(text: str, name: str, known: Sequence[str]) -> CutError:
    hint = nearest(name, known)
    bare = [one for one in known if name.endswith(f"_{one}")]
    if bare:
        hint = f"; closest: {max(bare, key=len)!r}, without the prefix of a track"
    if not hint and known:
        hint = "; known: " + ", ".join(map(repr, known[:8]))
    return CutError(f"cut {shown(text)} names an unknown variable {name!r}{hint}")


def _names(node: ast.AST) -> list[str]:
    """List the columns of an expression from left to right."""
    if isinstance(node, ast.Name):
        return [node.id]
    parts = node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
    return [name for part in parts for name in _names(part)]


def _resolve(
    text: str, tree: ast.expr, known: list[str] | None, aliases: Mapping[str, str]
) -> None:
    """Replace aliases in place and refuse unknown names."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node not in functions:
            node.id = _known_name(text, node.id, known, aliases)


def _known_name(
    text: str, name: str, known: list[str] | None, aliases: Mapping[str, str]
) -> str:
    target = name if known and name in known else aliases.get(name, name)
    if known is None or target in known:
        return target
    present = [column for column in known if _plain(column) == _plain(target)]
    if len(present) != 1:
        raise _unknown(text, name, known)
    return present[0]


def _plain(name: str) -> str:
    """Return the one name that all synonyms of a variable have."""
    short = str(name).removeprefix("probe_")
    base = short.removeprefix("Brunel_")
    return short.removesuffix(base) + _FIRST.get(base, base)


def _refused(text: str, node: ast.expr) -> CutError:
    return CutError(
        f"cut {shown(text)}: {ast.unparse(node)!r} is not allowed; a cut holds "
        f"comparisons of columns and numbers, + - * / and abs(), joined by & | !"
    )


def _compared(node: ast.expr, flags: list[str]) -> ast.expr:
    """Return the logical part with columns that stand alone compared with 1."""
    match node:
        case ast.Name(id=name):
            flags.append(name)
            one = ast.Constant(value=1.0)
            return ast.Compare(left=node, ops=[ast.Eq()], comparators=[one])
        case ast.BoolOp(values=values):
            node.values = [_compared(value, flags) for value in values]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            node.operand = _compared(operand, flags)
    return node


def _logical(
    text: str, node: ast.expr, arrays: Mapping[str, Any], usable: BoolArray
) -> Any:
    """Evaluate the logical part; clears `usable` where an operand is not finite."""
    match node:
        case ast.BoolOp(op=joint, values=values):
            parts = [_logical(text, value, arrays, usable) for value in values]
            join = np.logical_and if isinstance(joint, ast.And) else np.logical_or
            return join.reduce(parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return np.logical_not(_logical(text, operand, arrays, usable))
        case ast.Compare(left=left, ops=ops, comparators=comparators) if all(
            type(op) in COMPARISONS for op in ops
        ):
            operands = [_operand(text, part, arrays) for part in (left, *comparators)]
            if not _names(node):
                raise CutError(
                    f"cut {shown(text)}: {ast.unparse(node)!r} names no variable"
                )
            for part, operand in zip((left, *comparators), operands, strict=True):
                if not isinstance(part, ast.Name):
                    # A division by zero passes no cut.
                    usable &= np.isfinite(operand)
            pairs = zip(ops, operands[:-1], operands[1:], strict=True)
            try:
                return np.logical_and.reduce(
                    [
                        np.broadcast_to(
                            stored.compare(COMPARISONS[type(op)], a, b), usable.shape
                        )
                        for op, a, b in pairs
                    ]
                )
            except ValueError as error:
                raise CutError(
                    f"cut {shown(text)}: in {ast.unparse(node)!r}, a column {error}"
                ) from None
    raise _refused(text, node)


def _operand(text: str, node: ast.expr, arrays: Mapping[str, Any]) -> Any:
    """Return one side of a comparison; a column alone is as it is stored."""
    if isinstance(node, ast.Name):
        return arrays[node.id]
    if isinstance(node, ast.Constant):
        return node.value
    return _number(text, node, arrays)


def _number(text: str, node: ast.expr, arrays: Mapping[str, Any]) -> Any:
    """Evaluate an arithmetic expression, in double precision."""
    match node:
        case ast.Name(id=name):
            try:
                return stored.as_double(arrays[name])
            except ValueError as error:
                raise CutError(f"cut {shown(text)}: column {name!r} {error}") from None
        case ast.Constant(value=value):
            if isinstance(value, int):
                raise CutError(
                    f"cut {shown(text)}: double precision cannot hold {value}; it can "
                    "only be compared with a column of whole numbers"
                )
            return value
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in ARITHMETIC:
            return ARITHMETIC[type(sign)](_number(text, operand, arrays))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in ARITHMETIC:
            pair = [_number(text, part, arrays) for part in (left, right)]
            result = ARITHMETIC[type(sign)](*pair)
            if np.ndim(result) == 0 and not np.isfinite(result):
                raise CutError(f"cut {shown(text)}: {ast.unparse(node)!r} is no number")
            return result
        case ast.Call(func=ast.Name(id="abs"), args=[argument], keywords=[]):
            return np.abs(_number(text, argument, arrays))
    raise _refused(text, node)
