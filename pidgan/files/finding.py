"""Which files and trees a pattern stands for, and where their copies go."""

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pidgan.errors import NtupleError
from pidgan.files.formats import check_file, format_of, known_suffixes, open_file
from pidgan.files.trees import Source, is_remote, reading


def find_sources(
    patterns: Iterable[str | Path] | str | Path, *, trees: Sequence[str] = ()
) -> list[Source]:
    """Return the trees that file patterns stand for, in natural order of the files.

    A pattern is FILE or FILE:TREE; FILE may be a glob (`**` included), an address
    (`root://`, `http://`, ...) or Parquet. A file named twice counts once, and
    `b2.root` comes before `b10.root`. Without `:TREE`, a file's trees are those of
    `trees` that it holds, else its only tree.

    Args:
        patterns: One pattern or several.
        trees: Names of trees to take from each file that does not name its own.

    Raises:
        NtupleError: Nothing matches, or which tree is meant cannot be told.

    Example:
        >>> find_sources("mc/*.root:DecayTree")  # doctest: +SKIP
    """
    if isinstance(patterns, str | Path):
        patterns = [patterns]
    found: dict[Source, None] = {}
    for pattern in patterns:
        path, tree = _split(str(pattern))
        found.update((Source(match, tree), None) for match in _match(path))
    if not found:
        raise NtupleError("no input file given")
    sources: dict[Source, None] = {}
    for source in sorted(found, key=lambda source: _natural(source.path)):
        sources.update((meant, None) for meant in _trees_meant(source, trees))
    return list(sources)


def find_outputs(paths: Sequence[str], output: Path) -> dict[str, Path]:
    """Return the output file of each input file.

    Args:
        paths: The input files, each once.
        output: A file for one of them, or a directory.

    Raises:
        NtupleError: Two outputs would be the same, one is an input or of another
            format.
    """
    is_file = output.suffix.lower() in known_suffixes() and not output.is_dir()
    if is_file and len(paths) > 1:
        raise NtupleError(f"{output}: expected a directory for {len(paths)} files")
    outputs = {
        path: output if is_file else output / Path(path.partition("?")[0]).name
        for path in paths
    }
    written: dict[Path, str] = {}
    for path, file in outputs.items():
        if file in written:
            raise NtupleError(
                f"{written[file]} and {path} have the same name: both would be {file}; "
                "do them one by one"
            )
        written[file] = path
        if format_of(file) is not format_of(path):
            raise NtupleError(f"{file}: expected a name that ends as that of {path}")
    for path in paths:
        for file in written:
            if file.exists() and not is_remote(path) and file.samefile(path):
                raise NtupleError(f"{file} is an input; an input is never changed")
    return outputs


def list_trees(path: str | Path) -> list[str]:
    """Return the names of the trees in a file, directories included."""
    names = format_of(path).tree_names
    with open_file(path) as file, reading(str(path)):
        return [] if names is None else names(file)


def _split(pattern: str) -> tuple[str, str | None]:
    """Split FILE:TREE; the colons of an address and of an existing file are FILE's."""
    if is_remote(pattern):
        scheme, _, rest = pattern.partition("://")
        host, slash, path = rest.partition("/")
        path, _, tree = path.partition(":")
        return f"{scheme}://{host}{slash}{path}", tree or None
    if Path(pattern).exists():
        return pattern, None
    path, _, tree = pattern.rpartition(":") if ":" in pattern else (pattern, "", "")
    return path, tree or None


def _match(path: str) -> list[str]:
    """Return the files that a path or glob stands for."""
    if is_remote(path) or Path(path).exists() or not glob.has_magic(path):
        check_file(path)
        return [path]
    matches = [
        match for match in glob.glob(path, recursive=True) if Path(match).is_file()
    ]
    if not matches:
        raise NtupleError(f"no file matches {path!r}")
    return matches


def _natural(path: str) -> list[tuple[int, str]]:
    """Return a sort key in which numbers within names count as numbers."""
    parts = re.split(r"(\d+)", path)
    return [(int(p), "") if i % 2 else (-1, p) for i, p in enumerate(parts)]


def _trees_meant(source: Source, trees: Sequence[str]) -> list[Source]:
    """Return the trees of a file that a pattern without a tree's name stands for."""
    known = format_of(source.path)
    if source.tree is not None and known.tree_names is None:
        raise NtupleError(f"{source}: a {known.name} file has no trees to name")
    if source.tree is not None or known.tree_names is None:
        return [source]
    present = list_trees(source.path)
    listed = ", ".join(repr(name) for name in present) or "none"
    meant = [name for name in trees if name in present] if trees else present
    if trees and not meant:
        raise NtupleError(
            f"{source} has none of the trees {', '.join(map(repr, trees))}; its trees: "
            f"{listed}"
        )
    if not trees and len(present) != 1:
        raise NtupleError(
            f"{source} has {len(present)} trees, expected one or FILE:TREE; its trees: "
            f"{listed}"
        )
    return [Source(source.path, name) for name in meant]
