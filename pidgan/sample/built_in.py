"""Cuts that a calibration sample already has, as terms that stand one beside the other.

A generator knows only the tracks that its sample had. Terms on the probe, such as
"it is in the acceptance of the muon stations", also have to hold for the tracks of an
analysis; terms on tags and mothers select the sample, and ask nothing of an analysis.

`translate_cut` reads the cuts of other tools, which are written by programs: constants
that are compared with constants, `(1 == 1)`, and comparisons of what is true or false,
`((a == 1) | (b == 1)) == 1`. The grammar of `pidgan.sample.cuts` refuses both, as a
person who writes them errs.
"""

import ast
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pidgan.errors import CutError
from pidgan.sample.cut_syntax import shown, syntax_tree
from pidgan.sample.cuts import COMPARISONS, Cut, joined_parts, parse_cut
from pidgan.sample.definition import Sample

#: Longest text of a term in a message; longer ones are abridged.
LONGEST_TERM = 60
#: A whole number that Python writes with a point.
WHOLE = re.compile(r"(?<![\w.])(\d+)\.0(?![\w.])")
_TRUE_OR_FALSE = (ast.BoolOp, ast.Compare)


@dataclass(frozen=True)
class Term:
    """One part of a selection, all of whose parts hold.

    `text` is the part as the calibration sample has it, and `prefix` the beginning of
    the probe's branches if it is on the probe alone, else empty.
    """

    text: str
    prefix: str

    @cached_property
    def cut(self) -> Cut:
        """The parsed part."""
        return parse_cut(self.text)

    @property
    def brief(self) -> str:
        """The text, abridged for a message of one line."""
        if len(self.text) <= LONGEST_TERM:
            return self.text
        tree = self.cut.expression
        if not isinstance(tree, ast.BoolOp):
            return f"{self.text[:LONGEST_TERM]}..."
        return f"{_text(tree.values[0])} or {len(tree.values) - 1} more"


def split_terms(cut: str | None, prefix: str | None) -> tuple[Term, ...]:
    """Return the parts of a cut that are joined by "and", in its order.

    `prefix` is the beginning of the probe's branches, such as "muprobe_".
    """
    if not cut:
        return ()
    terms = []
    for part in joined_parts(ast.And, parse_cut(cut).expression):
        text = _text(part)
        names = parse_cut(text).names
        is_own = bool(prefix) and all(name.startswith(str(prefix)) for name in names)
        terms.append(Term(text, str(prefix) if is_own else ""))
    return tuple(terms)


def sample_terms(sample: Sample, dataset: Mapping[str, Any]) -> tuple[Term, ...]:
    """Return all that the tracks of a calibration sample have in common.

    They are the terms of its selection, and the optional conditions that have one value
    in all rows, which are "left_out" of the dataset.
    """
    prefix = probe_prefix(sample)
    terms = split_terms(sample.selection, prefix)
    named = {name for term in terms if term.prefix for name in term.cut.names}
    own = prefix or "probe_"
    left_out = dataset.get("left_out")
    constant = [
        Term(f"{own}{name} == {value:g}", own)
        for name, value in (left_out.items() if isinstance(left_out, dict) else ())
        if isinstance(value, float) and f"{own}{name}" not in named
        if str(name).isidentifier()
    ]
    return (*terms, *constant)


def probe_prefix(sample: Sample) -> str | None:
    """Return the beginning of the probe's branches, None if they have no common one."""
    found = {
        name.rpartition("_")[0]
        for variable in sample.conditions
        for name in variable.inputs
        if not variable.patterns or any("{track}" in p for p in variable.patterns)
    }
    return f"{found.pop()}_" if len(found) == 1 and "" not in found else None


def translate_cut(texts: Iterable[str]) -> str | None:
    """Return cuts of another tool, all of which hold, as one cut of this package.

    None means that every row passes. Raises a CutError for a cut that no row passes,
    or that is understood in no grammar.
    """
    parts: list[ast.expr] = []
    for text in texts:
        found = _simple(text, syntax_tree(text))
        if found is False:
            raise CutError(f"cut {shown(text)} is never true")
        if isinstance(found, ast.expr):
            parts += joined_parts(ast.And, found)
    if not parts:
        return None
    whole = parts[0] if len(parts) == 1 else ast.BoolOp(ast.And(), parts)
    text = _text(whole)
    parse_cut(text)
    return text


def _simple(text: str, node: ast.expr) -> ast.expr | bool:
    """Return an expression without constants that are true or false, or its value."""
    match node:
        case ast.BoolOp(op=joint, values=parts):
            return _join(joint, [_simple(text, part) for part in parts])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _negated(_simple(text, operand))
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [left, *others]
            values = [s.value for s in sides if isinstance(s, ast.Constant)]
            if len(values) == len(sides):
                return _compare(ops, values)
            if any(_is_logical(side) for side in sides):
                return _unwrapped(text, node)
    return node


def _join(joint: ast.boolop, parts: Sequence[ast.expr | bool]) -> ast.expr | bool:
    """Join parts; one that decides the whole is all that is left."""
    decides = isinstance(joint, ast.Or)
    if decides in [part for part in parts if isinstance(part, bool)]:
        return decides
    left = [part for part in parts if isinstance(part, ast.expr)]
    if not left:
        return not decides
    flat = [inner for part in left for inner in joined_parts(type(joint), part)]
    return flat[0] if len(flat) == 1 else ast.BoolOp(joint, flat)


def _negated(part: ast.expr | bool) -> ast.expr | bool:
    return not part if isinstance(part, bool) else ast.UnaryOp(ast.Not(), part)


def _compare(ops: Sequence[ast.cmpop], values: Sequence[Any]) -> bool:
    pairs = zip(ops, itertools.pairwise(values), strict=True)
    return all(COMPARISONS[type(op)](*pair) for op, pair in pairs)


def _unwrapped(text: str, node: ast.Compare) -> ast.expr | bool:
    """Return what `(a > 0 | b > 0) == 1` compares, negated for 0."""
    match node:
        case ast.Compare(
            left=left, ops=[ast.Eq() | ast.NotEq() as op], comparators=[right]
        ):
            logical, number = (left, right) if _is_logical(left) else (right, left)
            if isinstance(number, ast.Constant) and number.value in (0, 1):
                found = _simple(text, logical)
                same = isinstance(op, ast.Eq) == (number.value == 1)
                return found if same else _negated(found)
    raise CutError(
        f"cut {shown(text)}: {ast.unparse(node)[:80]!r} compares what is true or false "
        "with something else than 0 or 1"
    )


def _is_logical(node: ast.expr) -> bool:
    is_negation = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    return isinstance(node, _TRUE_OR_FALSE) or is_negation


def _text(node: ast.expr) -> str:
    """Write an expression with & | !, and whole numbers as such."""
    match node:
        case ast.BoolOp(op=joint, values=values):
            word = " & " if isinstance(joint, ast.And) else " | "
            return word.join(
                f"({_text(v)})" if isinstance(v, ast.BoolOp) else _text(v)
                for v in values
            )
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"!({_text(operand)})"
    return WHOLE.sub(r"\1", ast.unparse(node))
