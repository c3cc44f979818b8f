"""The manifest: one row per image, with its label, layout, content hash, size and error."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cnn.errors import UserError
from cnn.files import parquet
from cnn.files.folder import Listing
from cnn.files.place import Place
from cnn.text.plural import by_reason

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

COLUMNS = pa.schema(
    {
        "path": pa.string(),
        "label": pa.string(),
        "layout": pa.string(),
        "content_hash": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "error": pa.string(),
    }
)

LEAKS: dict[Split, str] = {"test": "duplicate_in_test", "validation": "duplicate_in_validation"}
"""The error of an image that is left out because its identical twin is in this split."""

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "holdout": "test",
}


class ManifestError(UserError):
    """The images cannot train a classifier: one line that says why and what to do."""


@dataclass(frozen=True)
class Manifest:
    """Every image of a folder, and how many files are not an image of any class.

    table: columns ``COLUMNS``: lossless text of the ``path``; the class name as ``label``; the
        split the folder's own ``layout`` gives, or null; the ``content_hash`` (32 hex digits, null
        where unread); ``size`` in bytes; ``mtime_ns``; the ``error``, or null. After
        ``cnn.dataset.splits.assign_splits`` also ``split``, null for a row with an error.
    ignored: counts by reason: those of the listing, ``no_class_folder`` and
        ``outside_the_splits``.
    empty_folders: folders that would be classes if they held an image, as the paths name them.
    """

    table: pa.Table
    ignored: dict[str, int]
    empty_folders: tuple[str, ...] = ()

    def with_contents(
        self, content_hash: Sequence[str | None], error: Sequence[str | None]
    ) -> "Manifest":
        """The manifest with the hash and the error of each row, after its file was read."""
        table = self.table
        for name, values in (("content_hash", content_hash), ("error", error)):
            column = pa.array(values, pa.string())
            table = table.set_column(table.column_names.index(name), name, column)
        return replace(self, table=table)

    def errors(self) -> Counter[str]:
        """How many rows have each error, the most frequent first."""
        return Counter(dict(Counter(self.table["error"].drop_null().to_pylist()).most_common()))

    def unreadable(self) -> list[tuple[str, str]]:
        """Path and reason of each file without pixels; leaks are readable, and not included."""
        failed = self.table.filter(pc.is_valid(self.table["error"]))
        rows = zip(failed["path"].to_pylist(), failed["error"].to_pylist(), strict=True)
        return [(path, error) for path, error in rows if error not in LEAKS.values()]

    def write(self, file: Place) -> None:
        """Writes Parquet, whole or not at all; the counts travel in the schema's metadata."""
        metadata = {
            "ignored": json.dumps(self.ignored),
            "empty_folders": json.dumps(self.empty_folders),
        }
        parquet.write(file, self.table.replace_schema_metadata(metadata))

    @classmethod
    def read(cls, file: Place) -> "Manifest":
        """Reads what ``write`` wrote; raises ManifestError for any other Parquet file."""
        table = parquet.read(file)
        metadata = table.schema.metadata or {}
        if b"ignored" not in metadata or not set(COLUMNS.names) <= set(table.column_names):
            raise ManifestError(f"{str(file)!r} is not a manifest: prepare the images again")
        older = metadata.get(b"bare", "[]")  # what earlier versions called it
        ignored = json.loads(metadata[b"ignored"])
        empty_folders = json.loads(metadata.get(b"empty_folders", older))
        return cls(table.replace_schema_metadata(None), ignored, tuple(empty_folders))


def hash_content(data: bytes) -> str:
    """The 16-byte BLAKE2b hash of a file's bytes, as 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def classes(table: pa.Table) -> list[str]:
    """The sorted class names of a manifest's table; a name's place is its label's index."""
    return sorted(pc.unique(table["label"].drop_null()).to_pylist())


def class_indices(names: pa.ChunkedArray, classes: list[str]) -> NDArray[np.int64]:
    """The index of each name in `classes`, `(N,)`; ValueError for a name that is not among them."""
    found = pc.index_in(names.cast(pa.string()), value_set=pa.array(classes, pa.string()))
    if found.null_count:
        unknown = names.filter(pc.is_null(found))[0].as_py()
        raise ValueError(f"class {unknown!r} is not one of the {len(classes)} classes")
    return np.asarray(found, np.int64)


def label_images(listing: Listing) -> Manifest:
    """The manifest of a listing before any image is read: labels, and the folder's own layout.

    The label is the first folder below the root. But if ``train/`` holds folders and is beside
    ``test/`` or ``val/`` (these and similar names, in any case), these are the folder's own splits
    and the label is the second folder. Raises ManifestError for fewer than two classes.
    """
    folders = [path.split("/")[:-1] for path in listing.files["path"].to_pylist()]
    own_splits = has_own_splits(folders)
    places = [label_and_layout(names, own_splits) for names in folders]
    table = pa.table(
        {
            "path": listing.files["path"],
            "label": pa.array([label for label, _, _ in places], pa.string()),
            "layout": pa.array([layout for _, layout, _ in places], pa.string()),
            "content_hash": pa.nulls(len(places), pa.string()),
            **{name: listing.files[name] for name in ("size", "mtime_ns", "error")},
        },
        schema=COLUMNS,
    ).filter(pa.array([skip is None for _, _, skip in places], pa.bool_()))
    skipped = Counter(skip for _, _, skip in places if skip)
    empty = listing.empty_subfolders if own_splits else listing.empty_folders
    unlearned = tuple(path for path in empty if label_and_layout(path.split("/"), own_splits)[0])
    manifest = Manifest(table, {**listing.ignored, **skipped}, unlearned)
    require_two_classes(manifest, listing.root)
    return manifest


def has_own_splits(folders: Sequence[Sequence[str]]) -> bool:
    """Whether the folders are train/<class>/ beside test/ or val/, not classes with such names.

    A class of images of trains is safe: it has no sibling ``test/``, or no folders inside.
    """
    split = {names[0]: split_named(names[0]) for names in folders if names}
    with_classes = {split[names[0]] for names in folders if len(names) > 1}
    return "train" in with_classes and not {"test", "validation"}.isdisjoint(split.values())


def split_named(folder: str) -> Split | None:
    """The split that a folder of this name holds (`train`, `Test`, `val`…); None if none."""
    return SPLIT_FOLDERS.get(folder.casefold())


def label_and_layout(
    names: Sequence[str], own_splits: bool
) -> tuple[str | None, Split | None, str | None]:
    """Label and layout of an image in these folders, or the reason why it has no label."""
    if not names:
        return None, None, "no_class_folder"
    if not own_splits:
        return names[0], None, None
    split = split_named(names[0])
    if split is None:
        return None, None, "outside_the_splits"
    return (names[1], split, None) if len(names) > 1 else (None, None, "no_class_folder")


def require_two_classes(manifest: Manifest, root: str) -> None:
    fix = "give a folder that holds one folder of images per class"
    if manifest.table.num_rows == 0:
        skips = by_reason(manifest.ignored) or "it is empty"
        raise ManifestError(f"no image of any class found in {root!r} ({skips}); {fix}")
    if len(names := classes(manifest.table)) == 1:
        raise ManifestError(f"only one class, {names[0]!r}, found in {root!r}; {fix}")
