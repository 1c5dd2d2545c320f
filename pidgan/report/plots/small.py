"""Pictures of pages: PNG files with a palette, which are small."""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pidgan.report.plots.canvas import png

PAGE_DPI = 120
LINE_COLOURS, MOST_COLOURS = 48, 255


def small_png(figure: Figure) -> bytes:
    """Return a figure as a PNG file with a palette, a third of the size of `png`."""
    from PIL import Image

    image = Image.open(io.BytesIO(png(figure, dpi=PAGE_DPI))).convert("RGB")
    # A picture with a scale of colours needs more of them than lines and points.
    shaded = any(axis.images or _has_scale(axis) for axis in figure.axes)
    few = image.quantize(
        MOST_COLOURS if shaded else LINE_COLOURS,
        method=Image.Quantize.MEDIANCUT,
        dither=Image.Dither.NONE,
    )
    buffer = io.BytesIO()
    few.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _has_scale(axis: Axes) -> bool:
    return any(shape.get_array() is not None for shape in axis.collections)
