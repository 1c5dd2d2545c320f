"""The one import of keras and tensorflow, quiet and with tensorflow as backend."""

import contextlib
import os
from collections.abc import Iterator

# Read when tensorflow is imported. Level 3 leaves no log lines: what goes wrong comes
# as an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Send the process' standard error to nowhere.

    Tensorflow 2.21 writes lines about the processor while it is imported, before it
    looks at its log level; they do not go through Python's sys.stderr.
    """
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


with _no_stderr():
    import keras
    import tensorflow as tf

__all__ = ["keras", "tf"]
