"""Write the parts of the reference that follow from the code, as plain Markdown.

Run it after a change of an option, a signature or a docstring:

    python docs/generate.py

- In `reference/cli.md`, each comment `<!-- help: VERB -->` is followed by what
  `pidgan VERB --help` prints.
- In `reference/api.md`, each comment with lines `.. autofunction:: NAME` (and
  `:members:` for methods) names what a heading is about. It is followed by a list of
  them, and `reference/api/` has a page for each heading, with signatures and
  docstrings.
- In the pages of `INLINE`, such a comment is followed by the docstrings themselves.

- In `explanation/`, a comment `<!-- include: FILE -->` is followed by a file, and
  `<!-- include: FILE NAME -->` by a function, class or constant of it.

A test compares these files with the code.
"""

import ast
import importlib
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

INLINE = ("reference/showers.md", "reference/errors.md")
CLI, API, PAGES = "reference/cli.md", "reference/api.md", "reference/api"
# What was written for Sphinx alone, which nobody can read elsewhere.
OLD = {
    r"```\{eval-rst\}\n(.*?)```\n": r"<!--\n\1-->\n",
    r"```\{pidgan-help\} ?([^\n]*)\n```\n": r"<!-- help: \1 -->\n",
}
HELP = re.compile(
    r"^<!-- help: ?([\w -]*?) ?-->\n(?:```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL
)
SECTION = re.compile(r"^### (.+)$", re.MULTILINE)
COMMENT = re.compile(r"^<!--\n(\.\. auto.*?)-->\n", re.MULTILINE | re.DOTALL)
LISTED = re.compile(r"\n?<!-- listed -->\n.*?<!-- end -->\n", re.DOTALL)
DIRECTIVE = re.compile(
    r"^\.\. auto(?:function|class|exception):: ([\w.]+)(?:\(\))?\n"
    r"(?:   :members: (.*)\n)?",
    re.MULTILINE,
)
INCLUDE = re.compile(r"^<!-- include: (\S+)(?: (\w+))? -->\n", re.MULTILINE)
ANY = re.compile(
    r"^\.\. auto(\w+):: ([\w.]+)(?:\(\))?\n"
    r"(?:   :no-members:\n)?(?:   :members: (.*)\n)?",
    re.MULTILINE,
)
# Sections of a docstring, and how a page calls them.
PARTS = {
    "Args": "Arguments",
    "Attributes": "Attributes",
    "Returns": "Returns",
    "Yields": "Yields",
    "Raises": "Raises",
    "Example": "Example",
    "Examples": "Example",
}
WIDTH = 88


def help_text(words: list[str]) -> str:
    """Return the help text of `pidgan` followed by the words."""
    from pidgan.cli import cli

    width = {"terminal_width": 79, "max_content_width": 79}
    command: click.Command = cli
    settings = {**cli.context_settings, **width}
    context = click.Context(cli, info_name="pidgan", **settings)
    for word in words:
        is_group = isinstance(command, click.Group)
        found = command.get_command(context, word) if is_group else None
        if found is None:
            raise KeyError(f"pidgan has no verb {' '.join(words)!r}")
        command = found
        settings = {**command.context_settings, **width}
        context = click.Context(command, parent=context, info_name=word, **settings)
    return command.get_help(context)


def command_line(text: str) -> str:
    """Return the page of the command line with the help texts of today."""

    def block(match: re.Match[str]) -> str:
        words = match[1].split()
        comment = f"<!-- help: {' '.join(words)} -->" if words else "<!-- help: -->"
        return f"{comment}\n```text\n{help_text(words).rstrip()}\n```\n"

    return HELP.sub(block, text)


def api(text: str) -> tuple[str, dict[str, str]]:
    """Return the page of the functions, and the pages below it by name."""
    pages: dict[str, str] = {}
    parts = SECTION.split(LISTED.sub("", text))
    shown = [parts[0]]
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        comment = COMMENT.search(body)
        if comment is None:
            shown.append(f"### {heading}{body}")
            continue
        objects = list(_objects(comment[1]))
        name = re.findall(r"`(\w+)`", heading)[0]
        intro = body[: comment.start()].strip()
        pages[f"{name}.md"] = _page(heading, intro, objects)
        rows = "\n".join(
            f"- [`{path.rpartition('.')[2]}`]({Path(PAGES).name}/{name}.md"
            f"#{path.rpartition('.')[2].lower()}): {_first_sentence(found)}"
            for path, found, _ in objects
        )
        end = comment.end()
        block = f"\n<!-- listed -->\n{rows}\n<!-- end -->\n"
        rest = body[end:].lstrip("\n")
        shown.append(f"### {heading}{body[:end]}{block}\n{rest}")
    return "".join(shown).rstrip() + "\n", pages


def included(page: str, text: str) -> str:
    """Return a page whose comments `include` are followed by a file or its lines."""

    def block(match: re.Match[str]) -> str:
        path = (DOCS / page).parent / match[1]
        body = path.read_text(encoding="utf-8").strip()
        if match[2]:
            body = f"```python\n{_lines_of(body, match[2])}\n```"
        return f"{match[0]}\n<!-- listed -->\n{body}\n<!-- end -->\n"

    return INCLUDE.sub(block, LISTED.sub("", text))


def _lines_of(source: str, name: str) -> str:
    """Return a class, function or constant of a module, as it is written there."""
    for node in ast.parse(source).body:
        named = {getattr(node, "name", None)}
        named.add(getattr(getattr(node, "target", None), "id", None))
        if name in named:
            starts = [d.lineno for d in getattr(node, "decorator_list", ())]
            first = min([*starts, node.lineno])
            return "\n".join(source.splitlines()[first - 1 : node.end_lineno])
    raise KeyError(f"no {name!r} in the file that is included")


def inline(text: str) -> str:
    """Return a page whose comments are followed by the docstrings that they name."""

    def block(match: re.Match[str]) -> str:
        lines: list[str] = []
        for kind, path, members in ANY.findall(match[1]):
            if kind == "module":
                module = importlib.import_module(path)
                lines += _docstring(inspect.getdoc(module) or "")
                named = [m.strip() for m in members.split(",") if m.strip()]
                found = {name: getattr(module, name) for name in named}
                lines += [f"- `{n}`: {_first_sentence(o)}" for n, o in found.items()]
                continue
            [(_, found, _)] = _objects(f".. auto{kind}:: {path}\n")
            lines += _described(path, found, level=3)
            for method in [m.strip() for m in members.split(",") if m.strip()]:
                raw = inspect.getattr_static(found, method)
                lines += _described(f"{path}.{method}", _plain(raw), level=4)
        body = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        return f"{match[0]}\n<!-- listed -->\n{body}\n<!-- end -->\n"

    return COMMENT.sub(block, LISTED.sub("", text))


def _plain(found: Any) -> Any:
    """Return the function of a method or property."""
    return getattr(found, "__func__", getattr(found, "fget", None) or found)


def _objects(text: str) -> Iterator[tuple[str, Any, list[str]]]:
    """Yield path, object and methods of the directives of a comment."""
    for path, members in DIRECTIVE.findall(text):
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        yield path, found, [m.strip() for m in members.split(",") if m.strip()]


def _page(heading: str, intro: str, objects: list[tuple[str, Any, list[str]]]) -> str:
    intro = re.sub(r"\]\((?!http|#)([^)]+)\)", r"](../\1)", intro)
    lines = [f"# {heading}", "", intro, "", f"[All functions](../{Path(API).name})", ""]
    for path, found, members in objects:
        lines += _described(path, found, level=2)
        for member in members:
            raw = inspect.getattr_static(found, member)
            lines += _described(f"{path}.{member}", _plain(raw), level=3)
    text = "\n".join(lines)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _described(path: str, found: Any, *, level: int) -> list[str]:
    """Return heading, signature and docstring of an object."""
    name = path.rpartition(".")[2]
    is_class = inspect.isclass(found)
    signature = "" if is_class or not callable(found) else _signature(name, found)
    lines = [f"{'#' * level} `{name}`", ""]
    if signature:
        lines += ["```text", signature, "```", ""]
    else:
        lines += [f"`{path}`", ""]
    return lines + list(_docstring(inspect.getdoc(found) or "")) + [""]


def _signature(name: str, found: Any) -> str:
    """Return a call with names and defaults, an argument a line where it is long."""
    parameters = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in inspect.signature(found).parameters.values()
        if p.name not in ("self", "cls")
    ]
    text = f"{name}{inspect.Signature(parameters)}"
    if len(text) <= WIDTH:
        return text
    inner = str(inspect.Signature(parameters))[1:-1]
    pieces = re.split(r", (?![^\[({]*[\])}])", inner)
    return f"{name}(\n" + "".join(f"    {piece},\n" for piece in pieces) + ")"


def _docstring(text: str) -> Iterator[str]:
    """Yield the lines of a docstring as Markdown."""
    blocks = re.split(rf"^({'|'.join(PARTS)}):\s*\n", text, flags=re.MULTILINE)
    yield from _prose(blocks[0])
    for title, body in zip(blocks[1::2], blocks[2::2], strict=True):
        inner = textwrap.dedent(body).strip("\n")
        yield from (f"**{PARTS[title]}**", "")
        if title.startswith("Example"):
            code = re.sub(r"\n\.\.\. +# doctest.*| +# doctest.*", "", inner)
            yield from ("```pycon" if ">>>" in code else "```text", code, "```", "")
        elif title in ("Returns", "Yields"):
            yield from _prose(inner)
        else:
            yield from (*map(_item, _entries(inner)), "")


def _prose(text: str) -> Iterator[str]:
    """Yield paragraphs; what is indented becomes a block of its own."""
    paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
    for is_code, group in itertools.groupby(paragraphs, _is_code):
        body = "\n\n".join(group)
        if is_code:
            yield from ("```text", textwrap.dedent(body), "```", "")
        elif body.strip():
            yield from (body, "")


def _is_code(paragraph: str) -> bool:
    return paragraph.startswith(("    ", ">>>"))


def _entries(text: str) -> Iterator[str]:
    """Yield the entries of a section, each with its continuation lines joined."""
    for entry in re.split(r"\n(?=\S)", text):
        if entry.strip():
            yield " ".join(entry.split())


def _item(entry: str) -> str:
    names, separator, meaning = entry.partition(": ")
    if not separator:
        return f"- {entry}"
    marked = ", ".join(f"`{name.strip()}`" for name in names.split(","))
    return f"- {marked}: {meaning}"


def _first_sentence(found: Any) -> str:
    text = " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.:]) (?=[A-Z])", text)[0]


def _source(page: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    for pattern, comment in OLD.items():
        text = re.sub(pattern, comment, text, flags=re.DOTALL)
    return text


def _pages_with_files() -> Iterator[tuple[str, str]]:
    for path in sorted((DOCS / "explanation").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if INCLUDE.search(text):
            name = path.relative_to(DOCS).as_posix()
            yield name, included(name, text)


def generated() -> dict[str, str]:
    """Return all files that follow from the code, by path below docs/."""
    page, below = api(_source(API))
    return {
        CLI: command_line(_source(CLI)),
        API: page,
        **{name: inline(_source(name)) for name in INLINE},
        **dict(_pages_with_files()),
        **{f"{PAGES}/{name}": text for name, text in below.items()},
    }


def main() -> None:
    """Write the files, and remove pages of headings that are gone."""
    files = generated()
    (DOCS / PAGES).mkdir(exist_ok=True)
    for path in (DOCS / PAGES).glob("*.md"):
        if f"{PAGES}/{path.name}" not in files:
            path.unlink()
    for name, text in files.items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
