"""The census: counts of what a manifest holds, and whether they can train a classifier."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from unicodedata import normalize

import pyarrow as pa
import pyarrow.compute as pc

from cnn.manifest import LEAKS, SPLITS, Manifest, ManifestError, Split, classes
from cnn.text.plural import by_reason, counted

# Most warnings of each kind, and most paths in one: more would hide the other warnings.
NAMED = 20
COPIES_NAMED = 5

_LACK: dict[Split, str] = {
    "train": "cannot be learned",
    "validation": "does not count when the best epoch is chosen",
    "test": "cannot be evaluated",
}


@dataclass(frozen=True)
class Census:
    """Counts of what a manifest with splits holds.

    Every file found is counted once: in ``counts``, ``unreadable``, ``leaks`` or ``ignored``.

    counts: images by class and split. unreadable: files by reason. leaks: images left out because
    an identical one is in the test or validation split, by error. ignored: as in the manifest.
    duplicates: images in the splits beyond the first of each content. conflicts: path and label of
    identical images under more than one label, by content hash; they keep their labels.
    empty_folders: as in the manifest.
    """

    counts: dict[str, dict[Split, int]]
    unreadable: dict[str, int]
    leaks: dict[str, int]
    ignored: dict[str, int]
    duplicates: int
    conflicts: dict[str, list[tuple[str, str]]]
    empty_folders: tuple[str, ...] = ()

    @property
    def split_sizes(self) -> dict[Split, int]:
        """Images by split."""
        return {split: sum(row[split] for row in self.counts.values()) for split in SPLITS}

    @property
    def images(self) -> int:
        """Images in any split."""
        return sum(self.split_sizes.values())

    @property
    def imbalance(self) -> float:
        """Training images in the largest class, divided by those in the smallest that has any."""
        sizes = [row["train"] for row in self.counts.values() if row["train"]]
        return max(sizes) / min(sizes) if sizes else 1.0

    def totals(self) -> dict[str, int]:
        """The counts that go into evaluation.json."""
        return {
            **{str(split): size for split, size in self.split_sizes.items()},
            "unreadable": sum(self.unreadable.values()),
            "duplicates": self.duplicates,
            "conflicts": len(self.conflicts),
            "leaks": sum(self.leaks.values()),
            "ignored": sum(self.ignored.values()),
        }

    def require_trainable(self) -> None:
        """Raises ManifestError unless two classes have training images and no split is empty."""
        if not self.images:
            links = (
                "; put copies in place of links out of the folder, which are not followed"
                if "outside_root" in self.unreadable
                else ""
            )
            reasons = by_reason(self.unreadable)
            raise ManifestError(
                f"none of the images can be read ({reasons}): check the files{links}"
            )
        learnable = [name for name, row in self.counts.items() if row["train"]]
        if len(learnable) < 2:
            names = ", ".join(map(repr, learnable)) or "none"
            raise ManifestError(
                f"fewer than two classes have training images ({names}): "
                "add images to the other classes"
            )
        for split in ("test", "validation"):
            if not self.split_sizes[split]:
                raise ManifestError(
                    f"none of the {self.images} images is in {split}: add images "
                    "(about 20 per class make a fair split) or give another --seed"
                )

    def warnings(self) -> list[str]:
        """What is wrong with the images, a line each, most kinds of it up to NAMED lines.

        Folders without images in one line; classes whose names look alike; classes that lack a
        split; identical images under more than one label; and all leaks in one line.
        """
        short = [line for name, row in self.counts.items() if (line := _shortage(name, row))]
        lines = without_images(self.empty_folders)
        lines += [_same_to_the_eye(names) for names in islice(_look_alikes(self.counts), NAMED)]
        lines += short[:NAMED]
        if (unnamed := len(short) - NAMED) > 0:
            lines.append(f"{counted(unnamed, 'more class', 'more classes')} lack images of a split")
        lines += [
            f"identical images under more than one label: {_named(group)}; keep them in one class"
            for group in islice(self.conflicts.values(), NAMED)
        ]
        if (unnamed := len(self.conflicts) - NAMED) > 0:
            lines.append(f"{counted(unnamed, 'more image')} under more than one label")
        if self.leaks:
            lines.append(
                f"{counted(sum(self.leaks.values()), 'image')} left out because identical ones are "
                f"in a split that must stay unseen ({by_reason(self.leaks)})"
            )
        return lines


def take_census(manifest: Manifest) -> Census:
    """The census of a manifest whose splits are assigned."""
    table = manifest.table
    hashes = table["content_hash"].filter(pc.is_valid(table["split"]))
    errors = manifest.errors()
    return Census(
        counts=_counts(table),
        unreadable={reason: n for reason, n in errors.items() if reason not in LEAKS.values()},
        leaks={reason: n for reason, n in errors.items() if reason in LEAKS.values()},
        ignored=manifest.ignored,
        duplicates=len(hashes) - len(pc.unique(hashes)),
        conflicts=_conflicts(table),
        empty_folders=manifest.empty_folders,
    )


def without_images(folders: tuple[str, ...]) -> list[str]:
    """The warning about folders without images, in training as in scoring; none if there are none.

    folders: the `empty_folders` of a manifest.
    """
    if not folders:
        return []
    names = [repr(name) for name in folders[:NAMED]]
    if (unnamed := len(folders) - NAMED) > 0:
        names.append(f"{unnamed:,} more")
    return [
        f"folders left out, because they hold no images: {', '.join(names)}; images are recognised "
        "by extensions such as .jpg, and links to folders are not followed"
    ]


def _counts(table: pa.Table) -> dict[str, dict[Split, int]]:
    counts: dict[str, dict[Split, int]] = {
        name: dict.fromkeys(SPLITS, 0) for name in classes(table)
    }
    groups = table.group_by(["label", "split"]).aggregate([([], "count_all")])
    for group in groups.filter(pc.is_valid(groups["split"])).to_pylist():
        counts[group["label"]][group["split"]] = group["count_all"]
    return counts


def _conflicts(table: pa.Table) -> dict[str, list[tuple[str, str]]]:
    read = table.filter(pc.is_valid(table["content_hash"])).select(
        ["content_hash", "path", "label"]
    )
    labels = read.group_by("content_hash").aggregate([("label", "count_distinct")])
    torn = labels["content_hash"].filter(pc.greater(labels["label_count_distinct"], 1))
    conflicts: dict[str, list[tuple[str, str]]] = {}
    for row in read.filter(pc.is_in(read["content_hash"], torn)).to_pylist():
        conflicts.setdefault(row["content_hash"], []).append((row["path"], row["label"]))
    return conflicts


def _look_alikes(names: Iterable[str]) -> Iterator[list[str]]:
    """Names that differ in case or in Unicode form only, as those of archives from a Mac may."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(normalize("NFC", name).casefold(), []).append(name)
    yield from (group for group in groups.values() if len(group) > 1)


def _same_to_the_eye(names: list[str]) -> str:
    """The warning about classes whose names look alike; escaped, they show their difference."""
    return (
        f"classes {', '.join(map(ascii, names))} differ in case or in Unicode form only: "
        "if they are one class, put their images into one folder"
    )


def _named(group: list[tuple[str, str]]) -> str:
    named = [f"{path!r} ({label!r})" for path, label in group[:COPIES_NAMED]]
    if (unnamed := len(group) - COPIES_NAMED) > 0:
        named.append(f"{unnamed:,} more")
    return ", ".join(named)


def _shortage(name: str, row: dict[Split, int]) -> str | None:
    """The warning about a class that lacks images in some split; None if it lacks none."""
    lacking = [split for split in SPLITS if not row[split]]
    if not lacking:
        return None
    total = sum(row.values())
    return (
        f"class {name!r} has {counted(total, 'image')} and none of them is in "
        f"{' or '.join(lacking)}: it {' and '.join(_LACK[split] for split in lacking)}; "
        "add images (about 20 make a fair split)"
    )
