"""Laws of parts: together they are the manifest, and they are neither too large nor too few."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.dataset import parts
from cnn.dataset.parts import Parts, part_rows
from cnn.manifest import Manifest


def manifest(images: int) -> Manifest:
    return Manifest(pa.table({"path": [f"{number:05d}.jpg" for number in range(images)]}), {})


@settings(deadline=None)
@given(st.integers(8, 1024), st.integers(1, 10**7))
def test_parts_are_neither_too_large_nor_too_few(image_size: int, images: int) -> None:
    rows = part_rows(image_size, images)
    assert 1 <= rows <= parts.MOST
    assert rows == 1 or rows * 3 * image_size**2 <= parts.PART_BYTES
    number = -(-images // rows)
    assert rows >= 32 or (rows + 1) * 3 * image_size**2 > parts.PART_BYTES  # worth opening
    assert number >= 15 or rows <= 32  # enough for many CPUs


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 300), st.integers(1, 100))
def test_parts_of_any_size_add_up_to_the_manifest(images: int, size: int) -> None:
    cut = Parts(manifest(images), size)
    tables = dict(enumerate(cut))
    assert len(tables) == len(cut)
    assert all(1 <= table.num_rows <= size for table in tables.values())
    if images:
        assert cut.together(tables).equals(cut.manifest.table)


def test_a_part_returned_with_other_images_raises() -> None:
    cut = Parts(manifest(10), 4)
    tables = dict(enumerate(cut))
    with pytest.raises(RuntimeError, match="not the images that went in"):
        cut.together(tables | {1: tables[1].slice(1)})
