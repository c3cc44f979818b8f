"""The splits: which images are to train on, to validate and to test.

A split depends only on an image's content, the seed and the folder's own layout. So identical
images are on one side, adding images moves no other image, and no file has to store the split.
The price: each class divides *about* 80/20, within the spread of a binomial. An exact share would
need a rank within the class, and then every added image could move others from training to test.
"""

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from cnn.manifest import LEAKS, Split

TEST_SHARE = 0.20
VALIDATION_SHARE = 0.10  # of the images not in test


def assign_splits(table: pa.Table, seed: int) -> pa.Table:
    """The table with its ``split`` column, and with leaks as errors.

    Of images without a layout about 20% go to test, and a tenth of the others to validation. A
    layout is kept; if it lacks test or validation, that is drawn from its train part in the same
    share. A train or validation image whose identical twin the layout puts in test is a leak
    (error ``duplicate_in_test``), as is a train image whose twin is in validation.
    """
    layout = pc.fill_null(table["layout"], "train")
    error = with_leaks(table, layout)
    given = set(pc.unique(layout).to_pylist())
    test_below = 0.0 if "test" in given else TEST_SHARE
    share = 0.0 if "validation" in given else VALIDATION_SHARE * (1 - test_below)
    drawn = draw(table["content_hash"], seed, test_below, test_below + share)
    split = pc.if_else(pc.equal(layout, "train"), drawn, layout)
    usable = pc.and_(pc.is_valid(table["content_hash"]), pc.is_null(error))
    split = pc.if_else(usable, split, pa.scalar(None, pa.string()))
    columns = dict(zip(table.column_names, table.columns, strict=True))
    return pa.table({**columns, "error": error, "split": split})


def with_leaks(table: pa.Table, layout: pa.ChunkedArray) -> pa.ChunkedArray:
    """The error column, with an error for each image whose twin is in a split above its own."""
    error, hashes = table["error"], table["content_hash"]
    above: tuple[tuple[Split, list[Split]], ...] = (
        ("test", ["train", "validation"]),
        ("validation", ["train"]),
    )
    for split, below in above:
        twins = hashes.filter(pc.equal(layout, split)).drop_null()
        leaks = pc.and_(pc.is_in(layout, pa.array(below)), pc.is_in(hashes, twins))
        error = pc.if_else(pc.and_(leaks, pc.is_null(error)), LEAKS[split], error)
    return error


def draw(
    hashes: pa.ChunkedArray, seed: int, test_below: float, validation_below: float
) -> pa.Array:
    """A split for each content hash, by a number in [0, 1) made from hash and seed; null stays."""
    key = str(seed).encode()

    def split(content_hash: str | None) -> Split | None:
        if content_hash is None:
            return None
        digest = hashlib.blake2b(content_hash.encode(), digest_size=8, key=key).digest()
        number = int.from_bytes(digest) / 2**64
        if number < test_below:
            return "test"
        return "validation" if number < validation_below else "train"

    return pa.array(map(split, hashes.to_pylist()), pa.string())
