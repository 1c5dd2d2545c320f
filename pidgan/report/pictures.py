"""Pictures: named figures that are drawn when somebody looks at them."""

import base64
import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from pidgan.arguments import checked
from pidgan.errors import nearest
from pidgan.files.writing import refuse_existing, writing_file, writing_folder
from pidgan.notebook import Facts, line, listed
from pidgan.report.plots import Figure, small_png
from pidgan.report.plots.files import file_content
from pidgan.report.suffixes import check_suffix

MARK = "pictures.txt"
"""File with the names of pictures, by which a folder of them is known."""


class Pictures(Mapping[str, Figure]):
    """Figures by name, each drawn once, when it is asked for.

    In a notebook all of them are shown. `save` writes them.

    Attributes:
        notes: What the pictures say in words, such as the share of tracks that a
            calibration sample does not cover.

    Example:
        >>> found = pidgan.plot("kaon-dataset")  # doctest: +SKIP
        >>> found["mass fit"]  # doctest: +SKIP
        >>> found.save("kaon.pdf")  # doctest: +SKIP
    """

    def __init__(
        self,
        draw: Mapping[str, Callable[[], Figure]],
        notes: Sequence[str] = (),
        *,
        elsewhere: str = "",
    ) -> None:
        self.notes = tuple(notes)
        self._elsewhere = elsewhere  # where other names are found, for messages
        self._draw = dict(draw)
        self._drawn: dict[str, Figure] = {}

    def __getitem__(self, name: str) -> Figure:
        if name not in self._draw:
            known = nearest(str(name), self._draw)
            raise KeyError(f"no picture {name!r}{known}{self._elsewhere}")
        if name not in self._drawn:
            self._drawn[name] = self._draw[name]()
        return self._drawn[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._draw)

    def __len__(self) -> int:
        return len(self._draw)

    def __repr__(self) -> str:
        return line("Pictures", Facts(listed(list(self)), {}))

    def _repr_html_(self) -> str:
        """Return all pictures with their names, for a notebook."""
        notes = [f"<p>{html.escape(text)}</p>" for text in self.notes]
        pictures = [
            f'<figure><figcaption>{html.escape(name)}</figcaption><img alt="'
            f'{html.escape(name)}" src="data:image/png;base64,'
            f'{base64.b64encode(small_png(figure)).decode()}"></figure>'
            for name, figure in self.items()
        ]
        return "\n".join([*notes, *pictures])

    def only(self, *names: str) -> "Pictures":
        """Return some of the pictures.

        Args:
            *names: Names of the pictures.

        Raises:
            ValueError: There is no picture of a name.
        """
        for name in names:
            if name not in self._draw:
                known = nearest(name, self._draw) or f"; there are {', '.join(self)}"
                raise ValueError(f"no picture {name!r}{known}")
        return Pictures({n: partial(self.__getitem__, n) for n in names}, self.notes)

    def content(self, suffix: str) -> bytes:
        """Return all pictures as the content of a file: .png, .pdf or .svg."""
        return file_content(list(self.values()), suffix)

    @checked
    def save(self, path: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
        """Write all pictures to a file or a folder.

        Args:
            path: NAME.pdf has a page for each picture; NAME.png and NAME.svg have all
                of them on one sheet. A name without suffix is a folder with a PNG file
                for each picture.
            overwrite: Whether an existing file, or folder of pictures, is replaced.

        Returns:
            The files that were written.

        Raises:
            ValueError: The name ends in another suffix.
            NtupleError: The path exists and `overwrite` is not set.
        """
        check_suffix(path)
        refuse_existing(path, overwrite=overwrite)
        target = Path(path)
        suffix = target.suffix.lower()
        if target.is_dir() or not suffix:
            names = self.file_names()
            folder = writing_folder(target, mark=MARK, overwrite=overwrite)
            with folder as temporary:
                for name, file in names.items():
                    (temporary / file).write_bytes(file_content([self[name]], ".png"))
                lines = (f"{file}  {name}\n" for name, file in names.items())
                (temporary / MARK).write_text("".join(lines), encoding="utf-8")
            return tuple(target / file for file in names.values())
        content = self.content(suffix)
        with writing_file(target, overwrite=overwrite) as temporary:
            temporary.write_bytes(content)
        return (target,)

    def file_names(self) -> dict[str, str]:
        """Return the name of a PNG file for each picture, all different."""
        found: dict[str, str] = {}
        for name in self:
            text = name.replace(">", " gt ").replace("<", " lt ")
            stem = "_".join(re.findall(r"[A-Za-z0-9.+-]+", text))[:80] or "picture"
            taken, number = set(found.values()), 2
            file = f"{stem}.png"
            while file in taken:
                file, number = f"{stem}_{number}.png", number + 1
            found[name] = file
        return found
