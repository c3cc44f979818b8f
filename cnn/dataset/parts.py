"""A manifest cut into parts: the unit of work, of commit and of resume."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from cnn.manifest import Manifest

# The pixels of a part: enough work to hide the cost of a Ray Data task (27 CPU-ms, 16 of them in
# the driver; with half the pixels, preparing costs 5% more), and little to lose when a job is
# killed.
PART_BYTES = 32 * 2**20
MOST = 4096  # images in a part, of the smallest ones
PARTS = 16  # of a small manifest: enough for many CPUs, with enough work in each task


def part_rows(image_size: int, images: int) -> int:
    """Images per part: a 16th of all, at least 32, but never more than `most_rows`."""
    return min(most_rows(image_size), max(32, -(-images // PARTS)))


def most_rows(image_size: int) -> int:
    """The most images of this side in a part: 32 MiB of pixels, or MOST."""
    return max(1, min(PART_BYTES // (3 * image_size**2), MOST))


@dataclass(frozen=True)
class Parts:
    """The rows of a manifest, `size` in each part but the last."""

    manifest: Manifest
    size: int

    @classmethod
    def of(cls, manifest: Manifest, image_size: int) -> "Parts":
        """The parts depend on the images alone, so that a resumed run has the same ones."""
        return cls(manifest, part_rows(image_size, manifest.table.num_rows))

    def __len__(self) -> int:
        return -(-len(self.manifest.table) // self.size)

    def __iter__(self) -> Iterator[pa.Table]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> pa.Table:
        return self.manifest.table.slice(number * self.size, self.size)

    def together(self, tables: Mapping[int, pa.Table]) -> pa.Table:
        """The results of all parts in one table; RuntimeError unless they are of all images."""
        whole = pa.concat_tables(tables[number] for number in range(len(self)))
        if not whole["path"].equals(self.manifest.table["path"]):
            raise RuntimeError("what came out are not the images that went in")
        return whole
