"""Generators that are given as they are, or by their path.

A path is that of a bundle, or of the folder of a model, which needs the training
dependencies.
"""

from pathlib import Path
from typing import TypeAlias, cast

from pidgan import higher
from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.card import Generator

GivenGenerator: TypeAlias = Generator | str | Path
"""A generator: a model, a bundle, or the path of one of them."""


def open_generator(given: GivenGenerator) -> Generator:
    """Return a generator, opened if its path is given.

    Of a corrector, it is its corrected simulation. A BundleError or a TrainingError
    says why it cannot be opened.
    """
    opened = open_given(given)
    if not opened.card.is_corrector:
        return opened
    corrected = higher.function("efficiency.simulated_rows", "corrected_rows")
    return cast(Generator, corrected(opened))


def open_given(given: GivenGenerator) -> Generator:
    """Return a generator or a corrector, opened if its path is given."""
    if not isinstance(given, str | Path):
        return given
    if not Path(given).is_dir():
        return open_bundle(given)
    return cast(Generator, higher.function("training.model", "open_model")(given))
