"""The one import of keras and tensorflow, quiet, and the arm of formulas on tensors."""

__all__ = ["keras", "strategy", "tf"]

import contextlib
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from pidgan.bundle.formulas import register
from pidgan.errors import TrainingError, one_line
from pidgan.files import machine, xrootd
from pidgan.training import interruptions, joining

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


xrootd.load_client()
# Tensorflow connects processes before its first operation.
_place = joining.place()
if _place is not None:
    joining.meet(_place)
with _no_stderr():
    import keras
    import tensorflow as tf

# Each phase of each link has a loop of its own, which tensorflow takes for one that is
# traced over and over.
tf.get_logger().setLevel("ERROR")
# Results depend on the number of threads, by rounding: it is the same on any number of
# cores. On two, a step of the published recipe takes 0.63 of its time in one thread.
# Both numbers count: XLA used one core with a single thread between operations.
THREADS = machine.stated_threads() or 2
with contextlib.suppress(RuntimeError):  # tensorflow runs already: its user decides
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)


def _connected(place: joining.Place) -> Any:
    """Return what sums over all processes; raise if this one cannot join the others."""
    if devices := tf.config.list_physical_devices("GPU"):  # one for each process
        own = devices[place.number_here % len(devices)]
        tf.config.set_visible_devices([own], "GPU")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(place.addresses)}),
        task_type="worker",
        task_id=place.rank,
        rpc_layer="grpc",
    )
    try:
        with _no_stderr(), interruptions.at_once():
            return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (tf.errors.OpError, RuntimeError) as error:
        raise TrainingError(
            f"process {place.rank} {joining.CANNOT_JOIN} "
            f"{place.addresses[place.rank]}, or finds no others: {one_line(error)}"
        ) from error


strategy: Any = None if _place is None else _connected(_place)
"""What sums over the processes of a training; None of a process that trains alone."""
# The graph optimizer orders sums by names that count up with every function traced:
# a second training in one process would round differently. It gains nothing here.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
# The first operation and the first use of XLA write some more lines, once a process.
with _no_stderr():
    tf.function(lambda v: v + 1, jit_compile=True)(tf.constant(0))


def _tensor_arm() -> SimpleNamespace:
    """Return the words of `pidgan.bundle.formulas`, see there, on tensors."""
    names = {"And": "logical_and", "Or": "logical_or", "Max": "maximum"}
    names |= {"Min": "minimum", "GreaterOrEqual": "greater_equal"}
    names |= {"LessOrEqual": "less_equal"}
    others = {"Clip": tf.clip_by_value, "Relu": tf.nn.relu}

    def apply(operator: str, x: Any, *operands: Any) -> Any:
        name = names.get(operator, operator.lower())
        function = others.get(operator) or getattr(tf.math, name)
        return function(x, *operands)

    kinds = {False: tf.float32, True: tf.float64}

    def like(x: Any, value: Any) -> Any:
        return tf.cast(value, x.dtype)

    def bins(v: Any, edges: Any) -> Any:
        # 1 in the bin and 0 elsewhere: the gradient of `in_bin` is a plain product.
        above = tf.cast(v >= edges, v.dtype)
        first, last = tf.ones_like(above[..., :1]), tf.zeros_like(above[..., :1])
        return tf.concat([first, above], -1) - tf.concat([above, last], -1)

    def in_bin(values: Any, bins: Any, ahead: int) -> Any:
        here = values[..., ahead : ahead + bins.shape[-1]]
        return tf.reduce_sum(bins * here, axis=-1, keepdims=True)

    def affine(x: Any, matrix: Any, constant: Any) -> Any:
        return tf.matmul(x, like(x, matrix)) + like(x, constant)

    return SimpleNamespace(
        affine=affine,
        apply=apply,
        bins=bins,
        columns=lambda x, start, stop: x[..., start:stop],
        concatenate=lambda parts: tf.concat(parts, axis=-1),
        cumulated=lambda x, exclusive: tf.cumsum(x, axis=-1, exclusive=exclusive),
        fold=lambda x, shape: tf.reshape(x, (*shape, -1)),
        in_bin=in_bin,
        index=lambda x, first: tf.cast(x, tf.int64) + tf.cast(first, tf.int64),
        largest=lambda x: tf.reduce_max(x, axis=-2),
        like=like,
        lookup=tf.gather,
        matmul=lambda x, matrix: tf.matmul(x, like(x, matrix)),
        numbers=lambda mask, x: tf.cast(mask, x.dtype),
        pick=lambda x, places: tf.gather(x, places, axis=-2),
        precise=lambda x: tf.cast(x, tf.float64),
        product=lambda matrix, x: tf.matmul(like(x, matrix), x),
        reshape=lambda x, shape: tf.reshape(x, (-1, *shape)),
        softmax=tf.nn.softmax,
        stack=lambda parts: tf.concat(parts, axis=-2),
        take=lambda x, places, axis: tf.gather(x, places, axis=axis),
        total=lambda x, axis: tf.reduce_sum(x, axis=axis, keepdims=True),
        turn=tf.transpose,
        uniform=lambda z: tf.math.erf(z * float(np.sqrt(0.5))) * 0.5 + 0.5,
        where=tf.where,
        with_precision=lambda x, double: tf.cast(x, kinds[double]),
    )


register(tf.Tensor, _tensor_arm())
