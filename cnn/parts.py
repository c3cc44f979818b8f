"""A manifest cut into parts: the unit of work, of commit and of resume."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from cnn.manifest import Manifest

# The pixels of a part: enough work to hide what a task of Ray Data costs (27 CPU-ms, 16 of
# them in the driver: with half of them, preparing costs 5% more), and little to lose in a kill.
PART_BYTES = 32 * 2**20
MOST = 4096  # images: of the smallest
PARTS = 16  # of a small manifest: enough for many CPUs, and few enough to be worth their tasks


def part_rows(image_size: int, images: int) -> int:
    """Images per part: 32 MiB of pixels, or fewer, so that there are 16 parts to share out."""
    return min(most_rows(image_size), max(32, -(-images // PARTS)))


def most_rows(image_size: int) -> int:
    """Images of so many pixels a side in the largest part."""
    return max(1, min(PART_BYTES // (3 * image_size**2), MOST))


@dataclass(frozen=True)
class Parts:
    """The rows of a manifest, `size` in each part but the last."""

    manifest: Manifest
    size: int

    @classmethod
    def of(cls, manifest: Manifest, image_size: int) -> "Parts":
        """A function of the images alone: whoever goes on with a run must cut as it was begun."""
        return cls(manifest, part_rows(image_size, manifest.table.num_rows))

    def __len__(self) -> int:
        return -(-len(self.manifest.table) // self.size)

    def __iter__(self) -> Iterator[pa.Table]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> pa.Table:
        return self.manifest.table.slice(number * self.size, self.size)

    def together(self, tables: Mapping[int, pa.Table]) -> pa.Table:
        """One table of what was made of each part; RuntimeError where images are not all there."""
        whole = pa.concat_tables(tables[number] for number in range(len(self)))
        if not whole["path"].equals(self.manifest.table["path"]):
            raise RuntimeError("what came out are not the images that went in")
        return whole
