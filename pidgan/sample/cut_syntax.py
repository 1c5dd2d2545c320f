"""The text of a cut as a syntax tree; whatever is not understood is an error.

Only listed characters and words may appear, so that nothing is dropped or read in
another meaning: no comment, no `**`, no `!a > 0`, which ROOT reads as `(!a) > 0`. An
error says at which character it happens. Python's parser then gives the tree.
"""

import ast
import keyword
import re
import unicodedata
import warnings
from decimal import Decimal

from pidgan.errors import CutError

#: A longer text is no PID cut.
MAX_LENGTH = 20_000
#: Levels of brackets, signs or terms of one sum; `&` and `|` add none.
MAX_DEPTH = 100
#: Words of the language, which cannot be names of columns.
RESERVED = frozenset({*keyword.kwlist, "abs"})

_EXACT = 2**53
_WORDS = {"&": "and", "&&": "and", "|": "or", "||": "or", "~": "not", "!": "not"}
_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
  | (?P<number>0[xX][\da-fA-F_]+ | 0[bBoO][\d_]+
      | (?:\d[\d_]*\.?[\d_]* | \.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)?)(?![\w.])
  | (?P<name>[^\W\d]\w*)
  | (?P<wrong>\*\*|//|<<|>>|<>|=<|=>|===|!==|&&&+|\|\|\|+|:=|->)
  | (?P<operator><=|>=|==|!=|&&|\|\||[-+*/<>()&|~!])
    """,
    re.VERBOSE | re.ASCII,
)
# Names may have letters of other alphabets; numbers and operators may not.
_NAME = re.compile(r"[^\W\d]\w*")
_HINTS = {
    "=": "write == to compare",
    "**": "write a product",
    "//": "write / for a division",
    "^": "write a product",
    "#": "a cut holds no comments",
    "'": "only numbers and names of columns are allowed",
    '"': "only numbers and names of columns are allowed",
    ";": "write & between two cuts",
    ",": "write & between two cuts",
}
_UPWARDS, _DOWNWARDS = (ast.Lt, ast.LtE), (ast.Gt, ast.GtE)


def syntax_tree(text: str) -> ast.expr:
    """Return the tree of a cut; its constants are numbers, exact integers or floats."""
    if not isinstance(text, str):
        raise TypeError(f"a cut is a text, got {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise CutError(
            f"cut {text[:40]!r}... has {len(text)} characters; at most {MAX_LENGTH}"
        )
    tokens = _tokens(text)
    _check_negations(text, tokens)
    spelled, places = "", []
    for place, token in tokens:
        places.append((len(spelled), place))
        spelled += f"{_WORDS.get(token, token)} "
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(spelled.strip(), mode="eval").body
    except SyntaxError as error:
        if "too many nested" in str(error.msg):
            raise too_deep(text) from None
        where = error.offset - 1 if error.offset else len(spelled)
        ahead = [at for begin, at in places if begin <= where < len(spelled) - 1]
        raise _no_cut(text, max(ahead, default=len(text))) from None
    except (RecursionError, MemoryError):
        raise too_deep(text) from None
    except (ValueError, Warning):
        raise _no_cut(text, 0) from None
    if _depth(tree) > MAX_DEPTH:
        raise too_deep(text)
    source = spelled.encode()  # the places of nodes are those of bytes
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            written = source[node.col_offset : node.end_col_offset].decode()
            node.value = _number(text, node, written.replace("_", ""))
        elif isinstance(node, ast.Compare):
            _check_chain(text, node)
    return tree


def too_deep(text: str) -> CutError:
    """Return the error of a cut with too many levels."""
    return CutError(
        f"cut {shown(text)} is nested too deeply: at most {MAX_DEPTH} levels of "
        "brackets, or terms of one sum"
    )


def shown(text: str) -> str:
    """Return a cut for a message, in one line of bounded length."""
    return repr(text) if len(text) <= 200 else f"{text[:200]!r}..."


def _tokens(text: str) -> list[tuple[int, str]]:
    """Split into (place, token); refuse whatever is no token of a cut."""
    found: list[tuple[int, str]] = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place) or _NAME.match(text, place)
        if match is None:
            raise _stranger(text, place)
        token, kind = match[0], match.lastgroup or "name"
        if kind == "name":
            token = _NAME.match(text, place)[0]  # type: ignore[index]
            _check_name(text, place, token)
        elif kind == "wrong":
            raise _stranger(text, place, token)
        if kind != "space":
            found.append((place, token))
        place += len(token)
    return found


def _stranger(text: str, place: int, token: str = "") -> CutError:
    token = token or text[place]
    hint = _HINTS.get(token, "")
    if not token.isascii() or not token.isprintable():
        hint = f"character {unicodedata.name(token, f'U+{ord(token):04X}')}"
    word = re.match(r"[\w.]+", text[place:])
    if not hint and word:
        token, hint = word[0], "no number, and no name of a column"
    return CutError(
        f"cut {shown(text)}: {token!r} at character {place + 1} is not allowed"
        f"{'; ' if hint else ''}{hint}"
    )


def _check_name(text: str, place: int, token: str) -> None:
    rest = text[place + len(token) :].lstrip()
    if token in {"and", "or", "not"} or (token == "abs" and rest.startswith("(")):
        return
    if token in RESERVED:
        raise CutError(
            f"cut {shown(text)}: the word {token!r} at character {place + 1} is not "
            "allowed; only numbers and names of columns are"
        )
    if unicodedata.normalize("NFKC", token) != token:
        raise CutError(
            f"cut {shown(text)}: {token!r} at character {place + 1} is not allowed; "
            f"it looks like {unicodedata.normalize('NFKC', token)!r}"
        )
    if rest.startswith("("):
        raise CutError(
            f"cut {shown(text)}: {token!r} at character {place + 1} is not allowed; "
            "the only function is abs()"
        )


def _check_negations(text: str, tokens: list[tuple[int, str]]) -> None:
    """Refuse `!` unless it negates a whole bracket or name.

    ROOT reads `!(a) > 0` and `!a > 0` otherwise.

    So does `not a > 0` in Python, which is unambiguous there.
    """
    words = [token for _, token in tokens]
    for i, (place, token) in enumerate(tokens):
        if token not in ("!", "~"):
            continue
        j = i + 1
        while j < len(words) and words[j] in ("!", "~"):
            j += 1
        if j < len(words) and _NAME.fullmatch(words[j]):
            after = words[j + 1] if j + 1 < len(words) else ")"
            if after in ("&", "&&", "|", "||", "and", "or", ")"):
                continue
        if j == len(words) or words[j] != "(":
            raise CutError(
                f"cut {shown(text)}: {token!r} at character {place + 1} must stand "
                f"before a bracket, for example !(RichDLLk > 0), or a variable of 0 "
                "and 1 alone"
            )
        level = 0
        for k in range(j, len(words)):
            level += {"(": 1, ")": -1}.get(words[k], 0)
            if level == 0:
                after = words[k + 1] if k + 1 < len(words) else ")"
                if after not in {")", "&", "&&", "|", "||", "and", "or"}:
                    raise CutError(
                        f"cut {shown(text)}: {token!r} at character {place + 1} must "
                        f"stand before a bracket with a whole cut, and {after!r} "
                        "follows the bracket"
                    )
                break


def _no_cut(text: str, place: int) -> CutError:
    rest = text[place : place + 20]
    where = f"at character {place + 1}, {rest!r}" if rest.strip() else "at its end"
    return CutError(
        f"cut {shown(text)} is not a comparison expression such as "
        f"'RichDLLk > 0 & P < 100000'; it is not understood {where}"
    )


def _depth(tree: ast.AST) -> int:
    """Return the number of levels, without recursion."""
    level, nodes = 0, [tree]
    while nodes:
        nodes = [child for node in nodes for child in ast.iter_child_nodes(node)]
        level += 1
    return level


def _check_chain(text: str, node: ast.Compare) -> None:
    """Allow `0 < a < 1`; C reads `a > 0 == 1` and the like in another way."""
    if len(node.ops) > 1 and not any(
        all(isinstance(op, kinds) for op in node.ops)
        for kinds in (_UPWARDS, _DOWNWARDS)
    ):
        raise CutError(
            f"cut {shown(text)}: {ast.unparse(node)!r} is not allowed; a chain of "
            "comparisons rises or falls, as 0 < a < 1; write & otherwise"
        )


def _number(text: str, node: ast.Constant, written: str) -> int | float:
    """Return the value of a constant, which must be the number that is written."""
    value = node.value
    if type(value) is int and abs(value) > _EXACT:
        try:
            exact = int(float(value)) == value
        except OverflowError:
            raise CutError(f"cut {shown(text)} holds a number too large") from None
        return float(value) if exact else value
    if type(value) is int:
        return float(value)
    if type(value) is not float:
        raise CutError(
            f"cut {shown(text)} holds {value!r}; only numbers and names of columns are "
            "allowed"
        )
    if value in (float("inf"), float("-inf")):
        raise CutError(f"cut {shown(text)} holds a number too large: {written}")
    if value == 0 and Decimal(written) != 0:
        raise CutError(f"cut {shown(text)} holds a number too small: {written}")
    if abs(value) >= _EXACT and Decimal(written) != Decimal(value):
        whole = Decimal(written)
        if whole == whole.to_integral_value() and "e" not in written.lower():
            return int(whole)
    return value
