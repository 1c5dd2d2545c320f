"""The client of root:// addresses, beside TensorFlow in one process.

TensorFlow shows its BoringSSL to every library that is loaded later. The OpenSSL of an
XRootD client would take functions from it, and end the process when it is loaded or
when a server asks for a certificate. The client therefore comes first, with the plugins
that it would load later, or else with its own functions before those of others.
"""

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import os
import sys
from pathlib import Path

SCHEMES = ("root", "roots", "xroot", "xroots")
PLUGINS = ("libXrdSec*.so", "libXrdCrypto*-*.so")  # beside the client, in its wheel


def prepare_for(path: str | Path) -> None:
    """Load the client if an address needs it."""
    if str(path).partition("://")[0].lower() in SCHEMES:
        load_client()


@functools.cache
def load_client() -> None:
    """Load the XRootD client with functions of its own, if it is installed."""
    found = importlib.util.find_spec("pyxrootd")
    if found is None or found.origin is None:
        return
    mode = os.RTLD_NOW | os.RTLD_LOCAL
    if "tensorflow" in sys.modules:
        mode |= getattr(os, "RTLD_DEEPBIND", 0)  # Linux; others keep libraries apart
    before = sys.getdlopenflags()
    sys.setdlopenflags(mode)
    try:
        # An installation that does not load is reported when a file is opened.
        with contextlib.suppress(ImportError):
            importlib.import_module("XRootD.client")
    finally:
        sys.setdlopenflags(before)
    folder = Path(found.origin).parent
    for plugin in sorted(path for name in PLUGINS for path in folder.glob(name)):
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(plugin), mode=mode)
