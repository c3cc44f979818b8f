"""The folder of a scoring run: predictions in parts, each there whole or not at all."""

import hashlib
from collections.abc import Iterator

import pyarrow as pa
from pydantic import BaseModel

from cnn import bundle, parquet
from cnn.atomic import write_atomically
from cnn.errors import UserError
from cnn.manifest import Manifest
from cnn.parts import Parts
from cnn.place import Place
from cnn.run_folder import RunFolder, facts, flat


class ScoreFolder(RunFolder):
    """Names of a scoring run's files, and the commit of its parts.

    A part appears whole or not at all; `_SUCCESS` follows the last of them, after all were
    counted. So whoever kills the run leaves parts that count, and the next run makes those that
    are missing.
    """

    MAY_CHANGE = frozenset(
        {"model", "images", "out", "labels", "sort_into", "workers", "gpu", "gpu_fraction"}
    )
    ORDERED = True  # parts are stretches of the list

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
        """Write what the run works on, so that it is gone on with under the same only."""
        self.check_model(checksums)
        self.predictions.mkdir(parents=True, exist_ok=True)
        if not self.manifest.is_file():  # to write it again in a bucket is to have none meanwhile
            manifest.write(self.manifest)
        write_atomically(self.model, checksums)

    def check_model(self, checksums: str) -> None:
        """Refuse another model than the run began with."""
        if self.model.is_file() and self.model.read_text(encoding="utf-8") != checksums:
            raise UserError(f"{self.path} was begun with another model: give another --out")

    def check_parts(self, parts: Parts) -> None:
        """Refuse to go on with parts that were cut otherwise, as other versions of this do."""
        if not self.predictions.is_dir():
            return
        there = set(range(len(parts))).difference(self.missing(parts))
        for number in sorted(there)[:1]:  # one tells of all
            if not parquet.read(self.part(number), ["path"])["path"].equals(parts[number]["path"]):
                raise UserError(
                    f"{self.path} was begun by another version, which cut the images otherwise: "
                    "give another --out"
                )

    def part(self, number: int) -> Place:
        return self.predictions / f"part-{number:06d}.parquet"

    def missing(self, parts: Parts) -> list[int]:
        """The numbers of the parts that are not there yet."""
        there = {file.name for file in self.predictions.iterdir()}
        return [number for number in range(len(parts)) if self.part(number).name not in there]

    def commit(self, number: int, table: pa.Table) -> None:
        """Write one part."""
        parquet.write(self.part(number), table)

    def seal(self, parts: Parts) -> None:
        """Mark the predictions as complete, having seen that each image has exactly one row."""
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
        """The predictions of a run that is done, part by part, however it was cut."""
        number = 0
        while self.part(number).is_file():
            yield self.table(number)
            number += 1


def checksums(model: Place) -> str:
    """SHA-256 of each of a bundle's files, in the manner of sha256sum."""
    lines = []
    for name in (bundle.CARD, bundle.WEIGHTS):
        digest = hashlib.sha256((model / name).read_bytes())
        lines.append(f"{digest.hexdigest()}  {name}\n")
    return "".join(lines)


def identity(settings: BaseModel, manifest: Manifest, checksums: str) -> str:
    """Hex that is the same only for the same predictions: of the same images, model, settings."""
    chosen = flat(settings.model_dump(mode="json")).items()
    own = sorted((k, v) for k, v in chosen if k.split(".")[-1] not in ScoreFolder.MAY_CHANGE)
    digest = hashlib.sha256(f"{own}{checksums}".encode())
    for column in facts(manifest).columns:
        digest.update(repr(column.to_pylist()).encode())
    return digest.hexdigest()
