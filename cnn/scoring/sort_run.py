"""Sorting by predictions: each image into the folder of its class, after a scoring run."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cnn.errors import UserError
from cnn.files.place import place
from cnn.files.reader import Reader
from cnn.scoring.prediction import confident
from cnn.scoring.score_folder import identity
from cnn.scoring.scoring_job import ScoringJob
from cnn.scoring.sorted_names import UNCERTAIN, ClassFolder, alike, class_folders
from cnn.scoring.sorting import Miss, SortedFolder, why_not
from cnn.scoring.worklist import Worklist
from cnn.text.console import Console
from cnn.text.plural import counted


def sorted_folder(job: ScoringJob, sums: str) -> SortedFolder | None:
    """The folder to sort images into, checked; None without --sort-into."""
    if job.settings.sort_into is None:
        return None
    roots = [root.place for root in job.work.roots]
    key = identity(job.settings, job.work.manifest, sums)
    into = place(job.settings.sort_into)
    if not isinstance(into, Path):
        raise UserError(f"--sort-into {into}: give a folder on this machine, or one mounted here")
    if f"{job.run.path.resolve()}/".startswith(f"{into.resolve()}/"):
        raise UserError(f"--sort-into {into} contains --out: give a separate folder")
    if f"{into.resolve()}/".startswith(f"{job.run.predictions.resolve()}/"):
        raise UserError(f"--sort-into {into} is among the predictions: give a separate folder")
    folder = SortedFolder(into, roots, key, twins(job.work))
    folder.check()
    return folder


def twins(work: Worklist) -> frozenset[str]:
    """The paths, each below its root, that differ from another in case or Unicode form only."""
    found = alike(work.manifest.table["path"].to_pylist())
    inside = ((root, path) for root in work.roots for path in found if path.startswith(root.prefix))
    return frozenset(root.below(path) for root, path in inside)


def sort(job: ScoringJob, folder: SortedFolder, console: Console) -> None:
    """Link or copy each predicted image into its class's folder, or that for uncertain ones."""
    job.run.check_parts(job.parts)  # of a finished run too, which may be of another version
    folder.begin()
    readers = [Reader(root.place) for root in job.work.roots]
    folders = class_folders(job.model.card.classes)
    missed: Counter[Miss] = Counter()
    done = 0
    with console.bar("sort", "images") as advance:
        for number, rows in enumerate(job.parts):
            table = job.run.table(number)
            for root in pc.unique(rows["root"]).to_pylist():
                here = table.filter(pc.equal(rows["root"], root))
                missed += folder.place(readers[root], placements(job, root, here, folders))
            done += len(rows)
            advance(done, len(job.manifest))
    for reason, count in missed.items():
        console.say(f"not sorted: {counted(count, 'image')}, {why_not(reason)}")
    console.say(f"sorted   {folder.folder}")


def placements(
    job: ScoringJob, root: int, table: pa.Table, folders: dict[str, ClassFolder]
) -> Iterator[tuple[str, ClassFolder]]:
    """The path below its root and the target folder of each image that has a prediction."""
    sure = confident(table, job.settings.min_confidence or 0.0)
    columns = (column.to_pylist() for column in (table["path"], table["predicted"], sure))
    for path, predicted, certain in zip(*columns, strict=True):
        if predicted is not None:
            folder = folders[predicted] if certain else UNCERTAIN
            yield job.work.roots[root].below(path), folder
