"""The folder of a scoring run: predictions in parts, each written whole or not at all."""

import hashlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pydantic import BaseModel

from cnn import bundle
from cnn.dataset.parts import Parts
from cnn.errors import UserError
from cnn.files import parquet
from cnn.files.atomic import remove_drafts, write_atomically
from cnn.files.place import Place
from cnn.manifest import Manifest
from cnn.runs.run_folder import RunFolder, facts
from cnn.scoring.worklist import prefix_of


class ScoreFolder(RunFolder):
    """Names of a scoring run's files, and the commit of its parts.

    A part appears whole or not at all; `_SUCCESS` is written after the last of them, once all were
    checked. So a killed run leaves complete parts, and the next run makes the missing ones.
    """

    # The batch size changes no more than the rounding.
    MAY_CHANGE = frozenset(
        {"model", "images", "out", "labels", "sort_into"}
        | {"batch_size", "workers", "gpu", "gpu_fraction"}
    )
    ORDERED = True  # parts are ranges of the list

    @property
    def predictions(self) -> Place:
        return self.path / "predictions"

    @property
    def success(self) -> Place:
        return self.predictions / "_SUCCESS"

    @property
    def csv(self) -> Place:
        return self.path / "predictions.csv"

    @property
    def uncertain(self) -> Place:
        return self.path / "uncertain.csv"

    @property
    def lost(self) -> Place:
        return self.path / "lost.csv"

    @property
    def summary(self) -> Place:
        return self.path / "summary.json"

    @property
    def model(self) -> Place:
        """Checksums of the model's files, as `sha256sum --check` reads them."""
        return self.path / "model.sha256"

    def begin_with(self, manifest: Manifest, checksums: str) -> None:
        """Record the images and the model, so that the run can resume with the same ones only.

        Drafts of a killed session are removed, so call it under the lock, before any commit.
        """
        self.check_model(checksums)
        self.predictions.mkdir(parents=True, exist_ok=True)
        remove_drafts(self.predictions)
        self.write_manifest(manifest)
        write_atomically(self.model, checksums)

    def check_images(self, manifest: Manifest) -> None:
        """The same; if only the folders are given in another way, the refusal says in which."""
        try:
            super().check_images(manifest)
        except UserError:
            folders = self.read_config().get("images") or ()
            if renamed(Manifest.read(self.manifest), manifest, folders):
                raise UserError(
                    f"{self.path} was started with the same folders, given in another way: give "
                    f"them as before ({' '.join(folders)})"
                ) from None
            raise

    def check_model(self, checksums: str) -> None:
        """Raise UserError if the run was started with another model."""
        if self.model.is_file() and self.model.read_text(encoding="utf-8") != checksums:
            raise UserError(f"{self.path} was started with another model: give another --out")

    def check_parts(self, parts: Parts) -> None:
        """Raise UserError if the parts were divided differently, by another version."""
        if not self.predictions.is_dir():
            return
        there = set(range(len(parts))).difference(self.missing(parts))
        for number in sorted(there)[:1]:  # one shows it for all
            if not parquet.read(self.part(number), ["path"])["path"].equals(parts[number]["path"]):
                raise UserError(
                    f"{self.path} was started by a version that divides images differently: "
                    "give another --out"
                )

    def part(self, number: int) -> Place:
        return self.predictions / f"part-{number:06d}.parquet"

    def missing(self, parts: Parts) -> list[int]:
        """The numbers of the parts that do not exist yet."""
        there = {file.name for file in self.predictions.iterdir()}
        return [number for number in range(len(parts)) if self.part(number).name not in there]

    def commit(self, number: int, table: pa.Table) -> None:
        """Write one part."""
        parquet.write(self.part(number), table)

    def seal(self, parts: Parts) -> None:
        """Check that each image has exactly one row, then mark the predictions as complete."""
        for number, rows in enumerate(parts):
            paths = parquet.read(self.part(number), ["path"])["path"]
            if not paths.equals(rows["path"]):
                raise RuntimeError(f"{self.part(number)} does not hold the images of its part")
        write_atomically(self.success, "")

    def table(self, number: int) -> pa.Table:
        """The predictions of one part."""
        return parquet.read(self.part(number))

    def tables(self, parts: Parts) -> Iterator[pa.Table]:
        """The predictions, part by part, in the order of the worklist."""
        for number in range(len(parts)):
            yield self.table(number)

    def written(self) -> Iterator[pa.Table]:
        """The predictions of a finished run, part by part, whatever the size of its parts."""
        number = 0
        while self.part(number).is_file():
            yield self.table(number)
            number += 1


def renamed(before: Manifest, now: Manifest, folders: Sequence[str]) -> bool:
    """Whether both are the same images, but not in `folders`, by which `before` calls them."""
    same = ["root", "label", "size", "mtime_ns"]
    if len(folders) < 2 or not before.table.select(same).equals(now.table.select(same)):
        return False
    columns = (before.table["path"], now.table["path"], now.table["root"])
    prefixes = [prefix_of(folder) for folder in folders]
    found = set()
    for old, new, root in zip(*(column.to_pylist() for column in columns), strict=True):
        below = old.removeprefix(prefixes[root])
        if not new.endswith(f"/{below}"):
            return False
        found.add((root, new.removesuffix(below)))
    return len(found) <= len(folders)


def checksums(model: Place) -> str:
    """SHA-256 of each of a bundle's files, in the format of sha256sum."""
    lines = []
    for name in (bundle.CARD, bundle.WEIGHTS):
        digest = hashlib.sha256((model / name).read_bytes())
        lines.append(f"{digest.hexdigest()}  {name}\n")
    return "".join(lines)


def identity(settings: BaseModel, manifest: Manifest, checksums: str) -> str:
    """A hex digest of all that the predictions depend on: images, model and settings."""
    own = sorted(ScoreFolder.fixed(settings).items())
    digest = hashlib.sha256(f"{own}{checksums}".encode())
    for column in facts(manifest).columns:
        digest.update(repr(column.to_pylist()).encode())
    return digest.hexdigest()
