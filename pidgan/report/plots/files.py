"""Figures as files: PNG, SVG and PDF, one figure, a sheet of them, or pages."""

import io
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave

from pidgan.arrays import FloatArray
from pidgan.report.plots.canvas import png, style

FILE_DPI = 150
"""Dots per inch of a PNG file: text is sharp in print and on fine screens."""

SHEET_INCHES = 20.0
"""Width of a sheet, unless one figure alone is wider."""


def file_content(figures: Sequence[Figure], suffix: str) -> bytes:
    """Return figures as one file: a sheet of all, or pages of a PDF."""
    if suffix == ".pdf":
        return _pdf(figures)
    if len(figures) == 1 and suffix == ".png":
        return png(figures[0], dpi=FILE_DPI)
    return _png_sheet(figures) if suffix == ".png" else _svg_sheet(figures)


def _pdf(figures: Sequence[Figure]) -> bytes:
    buffer = io.BytesIO()
    # Without the time, so that the same figures are the same file.
    dates = {"CreationDate": None, "ModDate": None}
    with style(), PdfPages(buffer, metadata=dates) as pages:
        for figure in figures:
            pages.savefig(figure)
    return buffer.getvalue()


def _png_sheet(figures: Sequence[Figure]) -> bytes:
    """Put the pixels of figures beside and below one another."""
    images = [imread(io.BytesIO(png(figure, dpi=FILE_DPI))) for figure in figures]
    sizes = np.array([image.shape[1::-1] for image in images]) / FILE_DPI
    places, (width, height) = _arrange(sizes)
    shape = (round(height * FILE_DPI), round(width * FILE_DPI), 4)
    sheet = np.ones(shape, dtype=np.float32)
    for image, place in zip(images, places, strict=True):
        x, y = (round(float(v) * FILE_DPI) for v in place)
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    buffer = io.BytesIO()
    imsave(buffer, sheet, format="png", dpi=FILE_DPI)
    return buffer.getvalue()


def _svg_sheet(figures: Sequence[Figure]) -> bytes:
    """Nest the drawings of figures in one, in units of points."""
    drawings, sizes = [], []
    for number, figure in enumerate(figures):
        buffer = io.StringIO()
        # Names within a drawing begin with its number: they must not be shared.
        with style():
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r'\bid="', f'id="f{number}_', text)
        text = re.sub(r'(href="|url\()#', rf"\g<1>#f{number}_", text)
        drawings.append(text)
        sizes.append(figure.get_size_inches())
    places, (width, height) = _arrange(np.array(sizes))
    parts = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{72 * width:g}pt" '
        f'height="{72 * height:g}pt" viewBox="0 0 {72 * width:g} {72 * height:g}">',
    ]
    for text, (x, y) in zip(drawings, places, strict=True):
        place = f'<svg x="{72 * x:g}" y="{72 * y:g}" '
        text = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', text, count=2)
        parts.append(text.replace("<svg ", place, 1))
    return "\n".join([*parts, "</svg>", ""]).encode()


def _arrange(sizes: FloatArray) -> tuple[FloatArray, tuple[float, float]]:
    """Return the upper left corners of figures of these sizes, and the whole size.

    Figures stand in lines from left to right, each as high as its highest figure.
    """
    limit = max(SHEET_INCHES, float(sizes[:, 0].max()))
    places = np.zeros(sizes.shape)
    x = y = line = width = 0.0
    for i, (w, h) in enumerate(sizes):
        if x > 0 and x + w > limit + 1e-6:
            x, y, line = 0.0, y + line, 0.0
        places[i] = x, y
        x, line = x + w, max(line, h)
        width = max(width, x)
    return places, (width, y + line)
