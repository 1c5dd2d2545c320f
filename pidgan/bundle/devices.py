"""Where graphs are computed: on the processor, or on a GPU by CUDA.

The processor is the default, with and without a GPU: its numbers are the same to the
last bit in every run, those of a GPU agree with them to 1e-4 max(1, |y|). Use "cuda" to
have a GPU or an error, and "auto" to have it where there is one.

The environment variable `PIDGAN_DEVICE` holds the choice of a process and of those that
it starts; `--device` sets it.
"""

import os
from typing import Literal, TypeAlias, get_args

from pidgan.errors import BundleError, nearest

Device: TypeAlias = Literal["cpu", "cuda", "auto"]
"""The processor, a GPU, or a GPU where there is one."""

VARIABLE = "PIDGAN_DEVICE"

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
"""Names of what onnxruntime computes with."""

HINT = (
    "install onnxruntime-gpu in place of onnxruntime (pip uninstall onnxruntime, pip "
    "install 'onnxruntime-gpu[cuda,cudnn]'), on a machine with a GPU of NVIDIA and its "
    "driver"
)


def chosen_device(given: str | None = None) -> Device:
    """Return the device that is given, else that of the process.

    Raises:
        BundleError: It is none of "cpu", "cuda" and "auto".
    """
    name = given or os.environ.get(VARIABLE) or "cpu"
    for known in get_args(Device):
        if name == known:
            found: Device = known
            return found
    listed = ", ".join(get_args(Device))
    close = nearest(name, get_args(Device))
    raise BundleError(f"device is {name[:60]!r}, expected one of {listed}{close}")


def use_device(name: Device) -> None:
    """Choose where this process computes, and those that it starts.

    Raises:
        BundleError: The device is "cuda", and onnxruntime has no such provider.
    """
    if chosen_device(name) == "cuda":
        check_cuda()
    os.environ[VARIABLE] = name


def has_cuda() -> bool:
    """Return whether the onnxruntime that is installed can use a GPU."""
    import onnxruntime

    return CUDA in onnxruntime.get_available_providers()


def check_cuda() -> None:
    """Raise a BundleError if the onnxruntime that is installed knows no GPU."""
    import onnxruntime

    if not has_cuda():
        known = ", ".join(onnxruntime.get_available_providers())
        raise BundleError(
            f"device cuda: onnxruntime {onnxruntime.__version__} has no {CUDA}, only "
            f"{known}; {HINT}"
        )
