"""The folder of a run: where its files are, and whether a command may resume it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import yaml
from pydantic import BaseModel

from cnn.errors import UserError, writing_to
from cnn.files.atomic import holds_anything, write_atomically
from cnn.files.lock import locked, require_free
from cnn.files.place import Place
from cnn.manifest import Manifest


@dataclass(frozen=True)
class RunFolder:
    """The files of every run; report.html is written last, and marks the run as finished.

    MAY_CHANGE: settings that do not change the result: a run may resume with other values. Of the
        images, the files are compared, not the name of their folder.
    """

    path: Place
    MAY_CHANGE: ClassVar[frozenset[str]]
    ORDERED: ClassVar[bool] = False  # whether the order of the images matters

    @property
    def config(self) -> Place:
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Place:
        return self.path / "manifest.parquet"

    @property
    def evaluation(self) -> Place:
        return self.path / "evaluation.json"

    @property
    def suspects(self) -> Place:
        return self.path / "suspects.csv"

    @property
    def report(self) -> Place:
        return self.path / "report.html"

    @property
    def finished(self) -> bool:
        return self.report.is_file() and self.manifest.is_file()

    def check(self, settings: BaseModel, manifest: Manifest) -> None:
        """Raise UserError if this run can neither start nor resume here.

        A run without a manifest has done nothing yet, and may start again with other settings.
        """
        require_free(self.path)
        self.check_content(settings, manifest)

    def check_content(self, settings: BaseModel, manifest: Manifest) -> None:
        """The same check, but of the content only: the caller may hold the lock."""
        if self.manifest.is_file():
            self.check_settings(settings)
            self.check_images(manifest)
        elif holds_anything(self.path) and not self.is_of(settings):
            raise UserError(f"{self.path} exists and is not a run: give another --out")

    def is_of(self, settings: BaseModel) -> bool:
        """Whether config.yaml is of such a run, whatever its values."""
        return self.read_config().keys() == flat(saved(settings)).keys()

    def read_config(self) -> dict[str, Any]:
        """The settings in config.yaml as `group.name` → value; none if it cannot be read."""
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return flat(content) if isinstance(content, dict) else {}

    @classmethod
    def fixed(cls, settings: BaseModel) -> dict[str, Any]:
        """The settings, as `group.name` → value, with which alone a run resumes."""
        values = flat(saved(settings))
        return {name: values[name] for name in values if cls.MAY_CHANGE.isdisjoint(name.split("."))}

    @contextmanager
    def begun(self, settings: BaseModel, manifest: Manifest) -> Iterator[None]:
        """Make the folder, and keep other jobs out of it for the length of a `with` block.

        Writes the settings to config.yaml, which `--config` reads. The folder is checked again:
        another job may have used it while this one waited for machines.
        """
        text = yaml.safe_dump(saved(settings), sort_keys=False)
        with ExitStack() as work:
            with writing_to(self.path, "give another --out"):
                self.path.mkdir(parents=True, exist_ok=True)
                work.enter_context(locked(self.path))
                self.check_content(settings, manifest)
                if not (self.config.is_file() and self.config.read_text(encoding="utf-8") == text):
                    write_atomically(self.config, text)
            yield

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest, once: a resumed run has the same images."""
        if not self.manifest.is_file():
            manifest.write(self.manifest)

    def check_settings(self, settings: BaseModel) -> None:
        """Raise UserError if a setting differs from the run's; epochs are compared first.

        Some defaults depend on the epochs: naming one of those would not show what to fix.
        """
        before, now = self.read_config(), self.fixed(settings)
        if not self.is_of(settings):
            raise UserError(f"{self.path} holds the run of another job: give another --out")
        for name, value in sorted(now.items(), key=lambda item: item[0] != "training.epochs"):
            if before.get(name) != value:
                setting = name.split(".")[-1]
                raise UserError(
                    f"{self.path} was started with {setting} {before.get(name)}, not {value}: "
                    "give the same settings, or another --out"
                )

    def check_images(self, manifest: Manifest) -> None:
        """Raise UserError if the images differ from the run's; it says how many do."""
        earlier = Manifest.read(self.manifest)
        # A million rows are compared fast as columns, and slowly as rows.
        if facts(earlier).equals(facts(manifest)):
            return
        before, now = files(earlier), files(manifest)
        if before == now and self.ORDERED:
            raise UserError(
                f"{self.path} was started with the folders in another order: give the same order"
            )
        added, removed = len(now.keys() - before.keys()), len(before.keys() - now.keys())
        changed = sum(now[path] != before[path] for path in now.keys() & before.keys())
        if added or removed or changed:
            raise UserError(
                f"{self.path} was started with other images "
                f"({added} added, {removed} removed, {changed} changed or labelled differently): "
                "give another --out"
            )


class TrainFolder(RunFolder):
    """The folder of a training run."""

    MAY_CHANGE = frozenset({"images", "out", "prepared", "resources"})

    @property
    def model(self) -> Place:
        return self.path / "model"

    @property
    def history(self) -> Place:
        return self.path / "history.csv"

    @property
    def predictions(self) -> Place:
        return self.path / "predictions.parquet"


class TuneFolder(TrainFolder):
    """The folder of a search; the files of a training run are those of the best trial."""

    # Tune resumes with the same number of workers and of trials at once.
    MAY_CHANGE = TrainFolder.MAY_CHANGE - {"resources"} | {"gpu", "memory", "gpu_fraction", "space"}

    @property
    def leaderboard(self) -> Place:
        return self.path / "leaderboard.csv"

    @property
    def best(self) -> Place:
        return self.path / "best.yaml"

    @property
    def trials(self) -> Place:
        return self.path / "trials"

    @property
    def space(self) -> Place:
        return self.path / "space.yaml"

    def check_space(self, text: str) -> None:
        """Raise UserError if the search was started with another space."""
        if self.manifest.is_file() and self.space.read_text(encoding="utf-8") != text:
            raise UserError(f"{self.path} was started with another space: give another --out")


def saved(settings: BaseModel) -> dict[str, Any]:
    """The settings of a run as config.yaml holds them."""
    return settings.model_dump(mode="json")


def facts(manifest: Manifest) -> pa.Table:
    """The columns that must not change for a run to resume."""
    return manifest.table.select(["path", "label", "size", "mtime_ns"])


def files(manifest: Manifest) -> dict[str, tuple[Any, ...]]:
    """The facts of every image, by path."""
    path, *others = (column.to_pylist() for column in facts(manifest).columns)
    return dict(zip(path, zip(*others, strict=True), strict=True))


def flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings as `group.name` → value."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found
