"""The one import of keras and tensorflow, quiet and with tensorflow as backend."""

import contextlib
import os
from collections.abc import Iterator

from pidgan.bundle.formulas import register
from pidgan.training.tensors import tensor_arm

# Read when tensorflow is imported. Level 3 leaves no log lines: what goes wrong comes
# as an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
# oneDNN rounds differently from run to run (by where its buffers lie in memory).
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Send the process' standard error to nowhere, past Python's sys.stderr.

    Tensorflow 2.21 writes lines about the processor before it looks at its log level.
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

# Results depend on the number of threads, by rounding: it is the same on any number of
# cores. On two, a step of the published recipe takes 0.63 of its time in one thread.
# Both numbers count: XLA used one core with a single thread between operations.
THREADS = 2
with contextlib.suppress(RuntimeError):  # tensorflow runs already: its user decides
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
# The graph optimizer orders sums by names that count up with every function traced:
# a second training in one process would round differently. It gains nothing here.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
# The first operation and the first use of XLA write some more lines, once a process.
with _no_stderr():
    tf.function(lambda v: v + 1, jit_compile=True)(tf.constant(0))

register(tf.Tensor, tensor_arm(tf))

__all__ = ["keras", "tf"]
