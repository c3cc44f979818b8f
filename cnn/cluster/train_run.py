"""A training run: from images to an evaluated model and its report."""

import time
from dataclasses import replace

import numpy as np
import pyarrow as pa

from cnn import bundle
from cnn.bundle import Bundle
from cnn.cluster import capacity, nodes, scoring, training, training_plan
from cnn.cluster.passes import make_all
from cnn.cluster.prepare_run import PREPARE_CPUS, shared_dataset
from cnn.cluster.progress import patiently
from cnn.cluster.scoring_plan import ScoringPlan
from cnn.cluster.session import joined, session
from cnn.cluster.training_plan import TrainingPlan
from cnn.cluster.worker import split_rows
from cnn.config import Experiment, TrainConfig
from cnn.dataset.census import Census, take_census
from cnn.dataset.parts import Parts
from cnn.dataset.pixels import Gather
from cnn.dataset.prepared import Prepared
from cnn.dataset.source import (
    Source,
    default_out,
    find_source,
    is_prepared,
    open_prepared,
    prepared_folder,
    source_pixels,
)
from cnn.dataset.splits import assign_splits
from cnn.errors import writing_to
from cnn.files import parquet
from cnn.files.atomic import write_atomically
from cnn.files.place import place
from cnn.manifest import Manifest
from cnn.report.evaluation import Evaluation
from cnn.report.preview import preview_page
from cnn.report.suspicion import suspects
from cnn.report.training import TestResult, evaluate_test, training_report
from cnn.runs import dry_run, preflight
from cnn.runs.run_folder import TrainFolder
from cnn.scoring.spreadsheet import write_csv
from cnn.text.console import Console
from cnn.training import history

# Training images that are scored beside the test split: accuracy is then known to 3 points.
SAMPLE = 1_000


def train(settings: TrainConfig, console: Console) -> None:
    """Train on a folder of images, evaluate the best epoch on the test split, write the run folder.

    The same call resumes an interrupted run, and leaves a finished one alone.
    """
    started = time.monotonic()
    run = TrainFolder(place(settings.out or default_out(settings.images)))
    nodes.require_lasting_folders(settings, run)
    source = find_source(settings, run)
    settings = settings.model_copy(update={"data": source.settings})
    preflight.check_network(settings.network, source.settings, source.manifest)
    if settings.preview:
        preview(source, settings, run, console)
        return
    if settings.dry_run:
        with joined():
            look_ahead(source, settings, run, training_plan.foreseen(settings), console)
        return
    run.check(settings, source.manifest)
    if run.finished:
        console.say(f"{run.path} is finished: nothing to do; give another --out to start again")
        announce(run, console)
        return
    capacity.require_any(settings.resources.gpu)
    with session(max(PREPARE_CPUS, training_plan.logical_cpus(settings))):
        plan = training_plan.plan(settings, console)
        nodes.require_shared_folder(run.path)
        with run.begun(settings, source.manifest):
            train_and_report(source, settings, run, plan, console, started)
    announce(run, console)


def train_and_report(
    source: Source,
    settings: TrainConfig,
    run: TrainFolder,
    plan: TrainingPlan,
    console: Console,
    started: float,
) -> None:
    """Prepare, train and evaluate, and write the run folder, its report last."""
    resumed = run.manifest.is_file()
    dataset = shared_dataset(source, prepared_folder(source, settings, run), console)
    census = record_splits(dataset, settings, run, plan)
    briefing = preflight.describe(census, settings, str(plan), console)
    trained = training.fit(settings, dataset, run.path, plan, console)
    keep(trained, run)
    pool = plan.scoring(dataset.card.image_size)
    result = test(dataset, census, settings, run, pool, console)
    seconds, title = time.monotonic() - started, run.path.resolve().name
    page = training_report(title, settings, dataset, result, seconds, resumed, briefing)
    write_atomically(run.report, page)


def preview(source: Source, settings: TrainConfig, run: TrainFolder, console: Console) -> None:
    """Write a page of augmented images, and nothing else."""
    rows, pixels = source.manifest.table, source_pixels(source)
    page = preview_page(run.path.resolve().name, rows, pixels, settings)
    file = run.path.parent / f"{run.path.name}-preview.html"
    with writing_to(file, "give another --out"):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, page)
    console.result(f"wrote {file}")


def look_ahead(
    source: Source, settings: TrainConfig, run: TrainFolder, plan: TrainingPlan, console: Console
) -> None:
    """Print all that is known before training, and write nothing."""
    folder = prepared_folder(source, settings, run)
    if is_prepared(source, folder):
        manifest = open_prepared(source, folder).manifest
    else:
        manifest = dry_run.read_all(source.root, source.manifest, source.settings, console)
    manifest = replace(manifest, table=assign_splits(manifest.table, settings.seed))
    census = take_census(manifest)
    preflight.describe(census, settings, str(plan), console)
    dry_run.class_table(census, manifest, console)
    dry_run.estimate(census, settings, plan.gpu, console)
    census.require_trainable()


def record_splits(
    dataset: Prepared, settings: Experiment, run: TrainFolder, plan: TrainingPlan
) -> Census:
    """Assign the splits, check that they suffice for training, and write the run's manifest."""
    manifest = replace(dataset.manifest, table=dataset.split(settings.seed))
    census = take_census(manifest)
    census.require_trainable()
    plan.require_images(census.split_sizes["train"], settings.training.batch_size)
    run.write_manifest(manifest)  # from here on, the run keeps its settings
    return census


def keep(trained: training.Trained, run: TrainFolder) -> None:
    """Write the best epoch as the run's model, and all epochs as the run's history."""
    trained.best.save(run.model)
    history.write(run.history, trained.history)


def test(
    dataset: Prepared,
    census: Census,
    settings: TrainConfig,
    run: TrainFolder,
    pool: ScoringPlan,
    console: Console,
    validated: bool = True,
) -> TestResult:
    """Score the test split with the run's model, once; write predictions, suspects and evaluation.

    Some of the training images are scored beside it, to tell how much better it does on these.
    settings: those that it was trained with. validated: whether the validation images were held
    out from training.
    """
    table = dataset.split(settings.seed)
    asked, learned = split_rows(table, "test"), sample(split_rows(table, "train"))
    model = bundle.load(run.model)
    both = Manifest(pa.concat_tables([asked, learned]), {})
    found = predict(both, dataset, model, pool, console)
    predictions, learned = found.slice(0, len(asked)), found.slice(len(asked))
    parquet.write(run.predictions, predictions)
    balance = settings.training.balance
    evaluation, album = evaluate_test(predictions, learned, model.card.classes, census, balance)
    write_csv(run.suspects, suspects([predictions], evaluation))
    evaluation.write(run.evaluation)
    best = int(model.card.trained["epoch"]) if validated else None
    temperature = model.card.temperature if "temperature" in model.card.trained else None
    return TestResult(evaluation, album, history.read(run.history), best, temperature)


def sample(rows: pa.Table) -> pa.Table:
    """At most SAMPLE rows, evenly spaced: sorted by path, they have all classes in proportion."""
    return rows.take(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(np.int64))


def predict(
    manifest: Manifest, dataset: Prepared, model: Bundle, pool: ScoringPlan, console: Console
) -> pa.Table:
    """The model's predictions of prepared images, in the order of their manifest."""
    # Sorted by shard, a part's images are neighbours. In manifest order, every part would have
    # images in every shard, and read it.
    order = np.lexsort([manifest.table["row"].to_numpy(), manifest.table["shard"].to_numpy()])
    parts = Parts.of(Manifest(manifest.table.take(order), {}), dataset.card.image_size)
    pool = replace(pool, workers=min(pool.workers, len(parts)))  # one worker takes a part
    found: dict[int, pa.Table] = {}

    def missing() -> list[int]:
        return [number for number in range(len(parts)) if number not in found]

    def attempt(numbers: list[int], isolated: bool) -> None:
        show()
        work = ((number, parts[number]) for number in numbers)
        for number, table in scoring.score(work, Gather(dataset), model, pool.refitted()):
            found[number] = table
            show()

    def show() -> None:
        advance(sum(map(len, found.values())), manifest.table.num_rows)

    with console.bar("test", "images") as advance:
        patiently(lambda: make_all(missing, attempt, console))
    return parts.together(found).take(np.argsort(order))


def announce(run: TrainFolder, console: Console) -> None:
    """Print the headline and the path of the run folder."""
    console.result(f"test {Evaluation.read(run.evaluation).headline}")
    console.result(f"wrote {run.path}")
