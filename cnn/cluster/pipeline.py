"""From images to a judged model: prepare, train, evaluate, report."""

import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq

from cnn import digits, preflight
from cnn.bundle import read_card
from cnn.census import Census, take_census
from cnn.cluster import ingest, resources, scoring, training
from cnn.cluster.ingest import Source
from cnn.cluster.resources import Plan
from cnn.cluster.session import session
from cnn.config import PrepareConfig, TrainConfig
from cnn.console import Console
from cnn.errors import Mendable
from cnn.manifest import Manifest, assign_splits
from cnn.prepared import Prepared
from cnn.report import Evaluation, evaluate
from cnn.report.run import write_run_report
from cnn.run_folder import RunFolder


def prepare(settings: PrepareConfig, console: Console) -> None:
    """Decode a folder of images once, into a prepared dataset."""
    folder = local(settings.out).absolute()
    dataset = ensure_prepared(ingest.list_source(settings.images, settings.data), folder, console)
    console.result(f"{dataset.manifest.table.num_rows} images in {len(dataset.classes)} classes")
    console.result(f"wrote {settings.out}")


def train(settings: TrainConfig, console: Console) -> None:
    """Train on a folder of images, judge the best epoch on the test split, write the run folder.

    The same call goes on with a run that was cut off, and leaves a finished one alone.
    """
    started = time.monotonic()
    run = RunFolder(local(settings.out or default_out(settings.images)))
    source = find_source(settings, run)
    preflight.check_network(settings.network, source.settings, source.manifest)
    run.check(settings, source.manifest)
    if run.finished:
        console.say(f"{run.path} is finished: nothing to do; another --out starts anew")
        announce(run, console)
        return
    with session(resources.logical_cpus(settings.resources)):
        plan = resources.plan(settings.resources)
        if settings.dry_run:
            dry_run(source, settings, run, plan, console)
            return
        run.begin(settings)
        dataset = ensure_prepared(source, prepared_folder(source, settings, run), console)
        census = split(dataset, settings, run)
        resources.check_share(plan, census.split_sizes["train"])
        about = preflight.describe(census, settings, dataset.card.image_size, str(plan), console)
        trained = training.fit(settings, dataset, run.path, plan, console)
        keep(trained, run)
        evaluation = judge(dataset, census, settings, run, plan, console)
    seconds = time.monotonic() - started
    write_run_report(run, settings, dataset.manifest, census, evaluation, seconds, about)
    announce(run, console)


def dry_run(
    source: Source, settings: TrainConfig, run: RunFolder, plan: Plan, console: Console
) -> None:
    """Tell all that can be known before training, and write nothing."""
    folder = prepared_folder(source, settings, run)
    if ingest.is_prepared(source, folder):
        manifest = Prepared.open(folder).manifest
    else:
        manifest = preflight.read_all(source.root, source.manifest, source.settings, console)
    table = assign_splits(manifest.table, settings.seed)
    census = take_census(Manifest(table, manifest.ignored))
    preflight.describe(census, settings, source.settings.image_size, str(plan), console)
    preflight.class_table(census, console)
    preflight.estimate(census, settings, source.settings.image_size, plan.gpu, console)
    census.require_trainable()


def local(folder: str) -> Path:
    """A folder to write to, which for now must be on this machine or a mounted one."""
    if "://" in folder:
        raise Mendable(f"--out {folder}: runs are written to local or mounted folders only, so far")
    return Path(folder)


def default_out(images: str | None) -> str:
    """`runs/` and the images' name."""
    return f"runs/{Path(images).resolve().name if images else 'digits'}"


def find_source(settings: TrainConfig, run: RunFolder) -> Source:
    """The images to train on: the folder given, a prepared dataset, or the embedded digits."""
    if settings.images is None:
        folder = digits.write(run.path.parent / "digits-images")
        return ingest.list_source(str(folder), settings.data)
    if ingest.is_prepared_dataset(settings.images):
        return ingest.reuse(Path(settings.images), settings.data)
    return ingest.list_source(settings.images, settings.data)


def prepared_folder(source: Source, settings: TrainConfig, run: RunFolder) -> Path:
    """Where the prepared dataset of `source` is or will be: one for all runs that can share it.

    Absolute, because Ray's workers have working directories of their own.
    """
    if source.prepared is not None:
        return source.prepared.absolute()
    parent = local(settings.prepared) if settings.prepared else run.path.parent / "prepared"
    return parent.absolute() / source.key


def ensure_prepared(source: Source, folder: Path, console: Console) -> Prepared:
    """The prepared dataset in `folder`, decoded now if it is not there yet."""
    if ingest.is_prepared(source, folder):
        console.say(f"prepared {folder} is there: nothing to decode")
        return Prepared.open(folder)
    files = source.manifest.table.num_rows
    with session(resources.PREPARE_CPUS), console.bar("decode") as advance:
        started = time.monotonic()
        dataset = ingest.prepare(source, folder, advance)
    seconds = time.monotonic() - started
    console.say(f"prepared {files} images in {seconds:.0f} s: {folder}")
    return dataset


def split(dataset: Prepared, settings: TrainConfig, run: RunFolder) -> Census:
    """Assign the splits, write the run's manifest, and make sure that it can train anything."""
    manifest = Manifest(dataset.split(settings.seed), dataset.manifest.ignored)
    census = take_census(manifest)
    census.require_trainable()
    manifest.write(run.manifest)
    return census


def keep(trained: training.Trained, run: RunFolder) -> None:
    """Make the best epoch the run's model, and its epochs the run's history."""
    run.model.mkdir(exist_ok=True)
    for file in ("model.safetensors", "model.json"):
        shutil.copy(trained.best / file, run.model / file)
    run.write_history(trained.history)


def judge(
    dataset: Prepared,
    census: Census,
    settings: TrainConfig,
    run: RunFolder,
    plan: Plan,
    console: Console,
) -> Evaluation:
    """Score the test split with the run's model, once; write predictions and evaluation."""
    rows = training.split_rows(dataset.split(settings.seed), "test")
    with console.bar("test") as advance:
        predictions = scoring.score_prepared(dataset, rows, run.model.absolute(), plan, advance)
    pq.write_table(predictions, run.predictions)
    evaluation = evaluate(predictions, read_card(run.model).classes, census.totals())
    evaluation.write(run.evaluation)
    return evaluation


def announce(run: RunFolder, console: Console) -> None:
    """The headline, and where everything lies."""
    evaluation = Evaluation.read(run.evaluation)
    low, high = evaluation.accuracy_interval
    console.result(
        f"test accuracy {evaluation.accuracy:.3f} (95% interval {low:.3f} to {high:.3f}), "
        f"macro F1 {evaluation.macro_f1:.3f}, {evaluation.images['judged']} images"
    )
    console.result(f"wrote {run.path}")
