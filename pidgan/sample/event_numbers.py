"""Numbers of events, where there are more hashes of events than memory holds.

Rows go to buckets by their hash, so that all rows of an event are in one of them. The
events of each bucket are numbered in the order of their first rows, after those of the
buckets before. Rows of a bucket rise, so that numbers are put back block by block.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan.arrays import IntArray
from pidgan.files.mapped import ArrayFile, Scratch, read_rows
from pidgan.sample.events import number_events

#: Rows up to which events are numbered in memory, in the order of their first rows.
MEMORY_ROWS = 4_000_000
#: Mean number of rows of a bucket, and rows of a block that are put back at a time.
BUCKET_ROWS, BLOCK_ROWS = 2_000_000, 1_000_000

Hashes = npt.NDArray[np.uint64]


class EventNumbers:
    """The number of the event of each row, block by block.

    Attributes:
        events: Number of events; as many as rows if each row is one.
        rows: Number of rows.
    """

    def __init__(self, hashes: Hashes, *, scratch: str | Path | None = None) -> None:
        self.rows = len(hashes)
        self._scratch: Scratch | None = None
        self._whole: IntArray | None = None
        if self.rows <= MEMORY_ROWS:
            self._whole = number_events(hashes)
            alone = self._whole is None
            self.events = (
                self.rows if self._whole is None else int(self._whole.max()) + 1
            )
            self.are_rows = alone
            return
        self._scratch = Scratch(scratch)
        self._buckets = 1 << max(1, int(np.ceil(np.log2(self.rows / BUCKET_ROWS))))
        ends = self._divide(hashes)
        self._ends = np.stack(ends)
        self._starts = np.zeros(self._buckets, dtype=np.int64)
        self._numbers = [self._number(bucket) for bucket in range(self._buckets)]
        counts = np.array([count for _, count in self._numbers])
        self._starts = np.cumsum(counts) - counts
        self.events = int(counts.sum())
        self.are_rows = self.events == self.rows

    def blocks(self) -> Iterator[tuple[slice, IntArray]]:
        """Yield places of consecutive rows, and the numbers (n,) of their events."""
        for k, start in enumerate(range(0, self.rows, BLOCK_ROWS)):
            place = slice(start, min(start + BLOCK_ROWS, self.rows))
            if self._whole is not None:
                yield place, self._whole[place]
                continue
            found = np.empty(place.stop - place.start, dtype=np.int64)
            first = self._ends[k - 1] if k else np.zeros(self._buckets, dtype=np.int64)
            for b in range(self._buckets):
                part = slice(int(first[b]), int(self._ends[k][b]))
                rows = np.fromfile(
                    self._file("rows", b),
                    np.int64,
                    part.stop - part.start,
                    offset=8 * part.start,
                )
                numbers = read_rows(self._numbers[b][0], part)
                found[rows - start] = numbers + self._starts[b]
            yield place, found

    def _file(self, name: str, bucket: int) -> Path:
        assert self._scratch is not None
        return self._scratch.path / f"{name}{bucket}"

    def _divide(self, hashes: Hashes) -> Sequence[IntArray]:
        """Write the rows of each bucket; return how many there are after each block."""
        shift = np.uint64(64 - int(np.log2(self._buckets)))
        files = {
            name: [open(self._file(name, b), "wb") for b in range(self._buckets)]  # noqa: SIM115
            for name in ("rows", "hashes")
        }
        ends, total = [], np.zeros(self._buckets, dtype=np.int64)
        try:
            for start in range(0, self.rows, BLOCK_ROWS):
                block = read_rows(hashes, slice(start, start + BLOCK_ROWS))
                bucket = (block >> shift).astype(np.int64)
                order = np.argsort(bucket, kind="stable")
                counts = np.bincount(bucket, minlength=self._buckets)
                stops = np.cumsum(counts)
                for b in np.flatnonzero(counts):
                    rows = order[stops[b] - counts[b] : stops[b]]
                    files["rows"][b].write((rows + start).astype(np.int64).data)
                    files["hashes"][b].write(block[rows].data)
                total = total + counts
                ends.append(total)
        finally:
            for file in (*files["rows"], *files["hashes"]):
                file.close()
        return ends

    def _number(self, bucket: int) -> tuple[IntArray, int]:
        """Return the numbers of the events of a bucket, and how many there are."""
        place = self._file("hashes", bucket)
        codes, ids = pd.factorize(np.fromfile(place, dtype=np.uint64))
        place.unlink()
        file = ArrayFile(self._file("numbers", bucket).with_suffix(".npy"), np.int64)
        file.write(np.asarray(codes, dtype=np.int64))
        return file.finish(self._scratch), len(ids)
