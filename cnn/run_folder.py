"""The folder of a run: what lies where in it, and whether a command may go on with it."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import yaml
from pydantic import BaseModel

from cnn.atomic import holds_anything, write_atomically
from cnn.errors import UserError
from cnn.lock import locked, require_free
from cnn.manifest import Manifest
from cnn.place import Place


@dataclass(frozen=True)
class RunFolder:
    """What every run's folder holds; report.html is written last, and says that the run is done.

    MAY_CHANGE: settings that leave the result as it is: a run may be gone on with under others. The
        images are compared themselves, not the way that their folder is written.
    """

    path: Place
    MAY_CHANGE: ClassVar[frozenset[str]]
    ORDERED: ClassVar[bool] = False  # whether the order of the images means something

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
    def report(self) -> Place:
        return self.path / "report.html"

    @property
    def finished(self) -> bool:
        return self.report.is_file() and self.manifest.is_file()

    def check(self, settings: BaseModel, manifest: Manifest) -> None:
        """Whether this run may be begun here or gone on with; UserError says what is in the way.

        Without a manifest it has done nothing yet, and may be begun anew under other settings.
        """
        require_free(self.path)
        self.check_content(settings, manifest)

    def check_content(self, settings: BaseModel, manifest: Manifest) -> None:
        """The same, whoever is at work in it."""
        if self.manifest.is_file():
            self.check_settings(settings)
            self.check_images(manifest)
        elif holds_anything(self.path) and not self.is_of(settings):
            raise UserError(f"{self.path} exists, and is not a run: give another --out")

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

    @contextmanager
    def begun(self, settings: BaseModel, manifest: Manifest) -> Iterator[None]:
        """Work in the folder, which is made, for the length of a `with` block: no other job does.

        Its settings are written down, which `--config` takes again. The folder is checked again:
        another job may have worked here while this one waited for machines.
        """
        text = yaml.safe_dump(saved(settings), sort_keys=False)
        with ExitStack() as work:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                work.enter_context(locked(self.path))
                self.check_content(settings, manifest)
                if not (self.config.is_file() and self.config.read_text(encoding="utf-8") == text):
                    write_atomically(self.config, text)
            except OSError as error:
                reason = error.strerror or " ".join(str(error).split())
                raise UserError(
                    f"{self.path} cannot be written ({reason}): give another --out"
                ) from None
            yield

    def check_settings(self, settings: BaseModel) -> None:
        """Refuse other settings than the run began with, naming the first; epochs before others.

        Defaults follow the epochs: to name one of those would not tell what to mend.
        """
        before, now = self.read_config(), flat(saved(settings))
        if not self.is_of(settings):
            raise UserError(f"{self.path} holds the run of another job: give another --out")
        for name, value in sorted(now.items(), key=lambda item: item[0] != "training.epochs"):
            setting = name.split(".")[-1]
            free = {setting, name.split(".")[0]} & self.MAY_CHANGE
            if not free and before.get(name) != value:
                raise UserError(
                    f"{self.path} was begun with {setting} {before.get(name)}, not {value}: "
                    "give the same settings, or another --out"
                )

    def check_images(self, manifest: Manifest) -> None:
        """Refuse other images than the run began with, telling how many differ."""
        begun = Manifest.read(self.manifest)
        # A million rows are compared in a moment as columns, and in many as rows.
        if facts(begun).equals(facts(manifest)):
            return
        before, now = files(begun), files(manifest)
        if before == now and self.ORDERED:
            raise UserError(
                f"{self.path} was begun with the folders in another order: give them in that order"
            )
        added, removed = len(now.keys() - before.keys()), len(before.keys() - now.keys())
        changed = sum(now[path] != before[path] for path in now.keys() & before.keys())
        if added or removed or changed:
            raise UserError(
                f"the images are not those that {self.path} was begun with "
                f"({added} added, {removed} removed, {changed} changed or labelled otherwise): "
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

    def read_history(self) -> pd.DataFrame:
        """history.csv, a row per epoch."""
        return pd.read_csv(io.BytesIO(self.history.read_bytes()))

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write history.csv, a row per epoch."""
        write_atomically(self.history, pd.DataFrame(history).to_csv(index=False))


class TuneFolder(TrainFolder):
    """The folder of a search; what it shares with a training run's is the best trial's."""

    # How many workers and trials there are at once is part of what Tune goes on with.
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
        """Refuse another space than the search began with."""
        if self.manifest.is_file() and self.space.read_text(encoding="utf-8") != text:
            raise UserError(f"{self.path} was begun with another space: give another --out")


def saved(settings: BaseModel) -> dict[str, Any]:
    """The settings of a run, without what is asked of one command: another job takes them too."""
    return settings.model_dump(mode="json", exclude={"dry_run", "preview"})


def facts(manifest: Manifest) -> pa.Table:
    """What must be the same of every image."""
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
            found[above + name] = value
    return found
