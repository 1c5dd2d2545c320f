"""Rows of many requests, generated together in blocks by a few threads.

A network takes as long for one row as for a small block of rows, so that rows of
requests which wait are put into one block. Nobody waits for more requests: a block is
what is there when a thread is free. Each request that waits gets a share of the next
block, so that a large one does not hold up small ones. The targets of a row depend on
neither block nor neighbours, see `pidgan.bundle.session`.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pidgan.bundle.bundle import Bundle
from pidgan.bundle.noise import UInt64Array, keyed_normal

Float32Array = npt.NDArray[np.float32]


@dataclass(kw_only=True, eq=False)
class Work:
    """Rows of one request, and what was generated for them.

    Attributes:
        bundle: Generator of the rows.
        x: Finite conditions (n, n_inputs).
        noise: Noise (n, n_noise), or the keys (n,) that it is made from.
        y: Targets (n, n_targets), filled block by block.
        done: Future that holds `y` when all rows are there.
    """

    bundle: Bundle
    x: Float32Array
    noise: Float32Array | UInt64Array
    y: Float32Array = field(init=False)
    done: "Future[Float32Array]" = field(default_factory=Future)
    taken: int = 0
    left: int = field(init=False)

    def __post_init__(self) -> None:
        width = len(self.bundle.card.targets)
        self.y = np.empty((len(self.x), width), dtype=np.float32)
        self.left = len(self.x)

    def noise_of(self, rows: slice) -> Float32Array:
        """Return the noise of rows."""
        found = self.noise[rows]
        if found.ndim == 1:
            n_noise = self.bundle.card.n_noise
            return keyed_normal(found.astype(np.uint64, copy=False), n_noise=n_noise)
        return found.astype(np.float32, copy=False)


Part = tuple[Work, slice]


class Batcher:
    """Threads that generate the rows of all requests.

    Args:
        threads: Number of threads.
        watch: Function of the rows of each block and of the requests that share it.
    """

    def __init__(
        self, threads: int, watch: Callable[[int, int], None] | None = None
    ) -> None:
        self._waiting: dict[str, deque[Work]] = {}  # by sha256 of the bundle
        self._turn: deque[str] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._watch = watch
        self._threads = [
            threading.Thread(target=self._run, name=f"pidgan-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work) -> "Future[Float32Array]":
        """Let rows be generated; the future holds them, or the error."""
        if len(work.x) == 0:
            work.done.set_result(work.y)
            return work.done
        kind = work.bundle.sha256
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the threads have ended")
            if kind not in self._waiting:
                self._waiting[kind] = deque()
                self._turn.append(kind)
            self._waiting[kind].append(work)
            # A large request is work for several threads.
            self._changed.notify(1 + (len(work.x) - 1) // work.bundle.block_rows)
        return work.done

    def close(self) -> None:
        """Finish what waits, and end the threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while parts := self._next():
            try:
                self._generate(parts)
            # Whatever it is, those who wait are told.
            except BaseException as error:
                for work in {id(work): work for work, _ in parts}.values():
                    with self._changed:
                        if not work.done.done():
                            work.done.set_exception(error)

    def _next(self) -> list[Part]:
        """Return the rows of the next block; none when all is over."""
        with self._changed:
            while True:
                while not self._turn:
                    if self._is_closed:
                        return []
                    self._changed.wait()
                kind = self._turn.popleft()
                waiting = self._waiting[kind]
                parts = _take(waiting)
                if waiting:
                    self._turn.append(kind)
                else:
                    del self._waiting[kind]
                if parts:
                    return parts

    def _generate(self, parts: list[Part]) -> None:
        x, z = (_joined(found) for found in zip(*map(_inputs, parts), strict=True))
        y = parts[0][0].bundle.generate(x, z)
        if self._watch is not None:
            self._watch(len(x), len(parts))
        first = 0
        for work, rows in parts:
            n = rows.stop - rows.start
            work.y[rows] = y[first : first + n]
            first += n
            with self._changed:
                work.left -= n
                if work.left == 0 and not work.done.done():
                    work.done.set_result(work.y)


def _inputs(part: Part) -> tuple[Float32Array, Float32Array]:
    """Return conditions and noise of rows of a request."""
    work, rows = part
    return work.x[rows], work.noise_of(rows)


def _joined(parts: Sequence[Float32Array]) -> Float32Array:
    """Return rows as one array, as they are if there is one part."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _take(waiting: "deque[Work]") -> list[Part]:
    """Take the rows of a block from the works that wait, of all alike."""
    parts: list[Part] = []
    room = waiting[0].bundle.block_rows
    while waiting and room:
        # What small ones leave of their share goes to those after them.
        for others in range(len(waiting), 0, -1):
            work = waiting.popleft()
            if work.done.done():  # it has failed
                continue
            stop = min(work.taken + max(1, room // others), len(work.x))
            parts.append((work, slice(work.taken, stop)))
            room -= stop - work.taken
            work.taken = stop
            if stop < len(work.x):
                waiting.append(work)
            if not room:
                break
    return parts
