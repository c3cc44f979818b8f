"""The worklist of a scoring run: every image of its folders once, with its label where known."""

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from unicodedata import normalize

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cnn.errors import UserError
from cnn.files.folder import Listing, list_folder, to_text
from cnn.files.place import Place
from cnn.manifest import COLUMNS, SPLITS, Manifest, split_named
from cnn.text.plural import by_reason


@dataclass(frozen=True)
class Root:
    """A folder of images: where it is, and what its images' paths begin with in the worklist.

    The prefix is empty if there is only one folder: an image then has its path in that folder.
    """

    place: str
    prefix: str

    def below(self, path: str) -> str:
        """The path below this root, from a path in the worklist."""
        return path[len(self.prefix) :]


@dataclass(frozen=True)
class Worklist:
    """What is to be scored.

    manifest: as in training, with one more column: `root`, the number of the image's root. Labels
        are null if unknown, and may be classes that the model does not have.
    unmatched: how many labelled images of the labels file are not in the folders.
    empty_labels: how many of its images have no label.
    """

    roots: list[Root]
    manifest: Manifest
    unmatched: int = 0
    empty_labels: int = 0

    @property
    def labelled(self) -> bool:
        labels = self.manifest.table["label"]
        return bool(labels.null_count < len(labels))

    def unknown(self, classes: Collection[str]) -> dict[str, int]:
        """Labels that are not a class of the model, and how many images have them."""
        counted = pc.value_counts(self.manifest.table["label"].drop_null())
        labels, counts = (column.to_pylist() for column in counted.flatten())
        found, known = sorted(zip(labels, counts, strict=True)), set(classes)
        return {label: count for label, count in found if label not in known}

    def split_in(self, number: int, classes: Collection[str]) -> str | None:
        """The folder of a root that is a split (`test`, `train`…) and holds folders of classes.

        If there are several, that of the test split; None if there is none.
        """
        rows = self.manifest.table.filter(pc.equal(self.manifest.table["root"], number))
        paths = pc.utf8_slice_codeunits(rows["path"], len(self.roots[number].prefix))
        names = pc.extract_regex(paths, r"^(?P<top>[^/]+)/(?P<inner>[^/]+)/")
        inner = spelled_as(classes, pc.struct_field(names, "inner"))
        tops = pc.struct_field(names, "top").filter(pc.is_in(inner, pa.array(list(classes))))
        splits = {split_named(top): top for top in pc.unique(tops).to_pylist()}
        return next((splits[split] for split in reversed(SPLITS) if split in splits), None)


def list_images(
    folders: Sequence[str], classes: Collection[str], labels: Place | None = None
) -> Worklist:
    """List `folders`; labels come from the file, or from the first folder below each root.

    The folders below a root are labels if at least one is a class of the model: the others are
    then classes unknown to it. Raises UserError if a folder is in another, or if no image is found.
    """
    listings = [list_folder(folder) for folder in folders]
    require_apart([listing.root for listing in listings])
    prefixes = [""] if len(folders) == 1 else [prefix_of(folder) for folder in folders]
    tables = [
        rows(listing, number, prefix, classes)
        for number, (listing, prefix) in enumerate(zip(listings, prefixes, strict=True))
    ]
    table = pa.concat_tables(tables)
    ignored = sum((Counter(listing.ignored) for listing in listings), Counter())
    if not table.num_rows:
        found = by_reason(ignored) or "it is empty"
        raise UserError(f"no image found in {' '.join(folders)} ({found}): give a folder of images")
    unmatched, empty_labels = 0, 0
    if labels:
        table, unmatched, empty_labels = with_labels(table, labels)
    table = set_labels(table, spelled_as(classes, table["label"]))
    roots = [Root(listing.root, prefix) for listing, prefix in zip(listings, prefixes, strict=True)]
    empty_folders = tuple(
        f"{prefix}{name}"
        for listing, prefix in zip(listings, prefixes, strict=True)
        for name in listing.empty_folders
    )
    manifest = Manifest(table, dict(ignored), empty_folders)
    return Worklist(roots, manifest, unmatched, empty_labels)


def prefix_of(folder: str) -> str:
    """What the paths of a folder's images begin with: the same for `x`, `x/` and `./x`."""
    plain = folder.partition("?")[0].rstrip("/") if "://" in folder else os.path.normpath(folder)
    return f"{to_text(os.fsencode(plain))}/"


def require_apart(roots: Sequence[str]) -> None:
    """Raise UserError if a root is another one or inside it: images would be scored twice."""
    real = [
        root.partition("?")[0] if "://" in root else os.path.realpath(root)  # without options
        for root in roots
    ]
    for number, inner in enumerate(real):
        for outer in real[:number] + real[number + 1 :]:
            if f"{inner}/".startswith(f"{outer.rstrip('/')}/"):
                raise UserError(f"{roots[number]} is given twice, or is in another: give it once")


def rows(listing: Listing, root: int, prefix: str, classes: Collection[str]) -> pa.Table:
    """The manifest rows of one root."""
    files = listing.files
    tops = spelled_as(classes, pc.unique(files["top"]))
    known = set(tops.to_pylist()) & set(classes)
    columns = {
        "path": pc.binary_join_element_wise(prefix, files["path"], ""),
        "label": files["top"] if known else pa.nulls(files.num_rows, pa.string()),
        "layout": pa.nulls(files.num_rows, pa.string()),
        "content_hash": pa.nulls(files.num_rows, pa.string()),
        **{name: files[name] for name in ("size", "mtime_ns", "error")},
    }
    table = pa.table(columns, schema=COLUMNS)
    return table.append_column("root", pa.array([root] * files.num_rows, pa.int16()))


def spelled_as(known: Collection[str], names: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The names, each as the known one is spelled that it differs from in Unicode form only.

    A folder from a Mac's archive has its accents as characters of their own.
    """
    spelling = {normalize("NFC", name): name for name in known}
    spelling |= {name: name for name in known}
    distinct = pc.unique(names)
    spelled = [
        None if name is None else spelling.get(name, spelling.get(normalize("NFC", name), name))
        for name in distinct.to_pylist()
    ]
    return pa.array(spelled, pa.string()).take(pc.index_in(names, distinct))


def set_labels(table: pa.Table, labels: pa.Array) -> pa.Table:
    """The table with other labels."""
    return table.set_column(table.column_names.index("label"), "label", labels)


def with_labels(table: pa.Table, file: Place) -> tuple[pa.Table, int, int]:
    """The table with the labels of a CSV file.

    And how many labelled images of the file are not in it, and how many have an empty label. An
    image that is not in the file has no label. Paths may differ in their Unicode form, but an
    exact one comes first. Raises UserError if no image gets a label.
    """
    listed, paths = read_labels(file), table["path"].to_pylist()
    given = {path: label for path, label in listed.items() if label}
    if not given:
        raise UserError(f"--labels {file} gives no image a label: fill its column 'label'")
    spelled = spelled_as(paths, pa.array(list(given), pa.string())).to_pylist()
    found = dict(zip(spelled, given.values(), strict=True)) | given
    labels = [found.get(path) for path in paths]
    matched = len(labels) - labels.count(None)
    if not matched:
        raise UserError(
            f"--labels {file} matches no image (it has {next(iter(given))}, "
            f"the folder has {table['path'][0]}): write paths as manifest.parquet has them"
        )
    labelled = set_labels(table, pa.array(labels, pa.string()))
    return labelled, len(given) - matched, len(listed) - len(given)


def read_labels(file: Place) -> dict[str, str]:
    """Path → label, which may be empty; UserError if the file is unreadable or contradictory."""
    try:
        # Names such as NA and null are text: pandas would make them missing values. The header is
        # read as a row: a longer row is then an error, and not truncated or read as an index.
        table = pd.read_csv(
            BytesIO(file.read_bytes()),
            dtype=str,
            keep_default_na=False,
            na_filter=False,
            header=None,
        )
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"--labels {file} cannot be read as CSV: {reason}") from None
    table = table[1:].set_axis(table.iloc[0], axis="columns")
    if missing := {"path", "label"} - set(table.columns):
        found = ", ".join(map(str, table.columns))
        raise UserError(f"--labels {file} has no column {sorted(missing)[0]!r}, only {found}")
    for name in ("path", "label"):
        if list(table.columns).count(name) > 1:
            raise UserError(
                f"--labels {file} has more than one column {name!r}: rename all but one"
            )
    pairs = table[["path", "label"]].drop_duplicates()
    if (twice := pairs["path"].duplicated()).any():
        raise UserError(f"--labels {file} has two labels for {pairs['path'][twice].iloc[0]!r}")
    return dict(zip(pairs["path"], pairs["label"], strict=True))
