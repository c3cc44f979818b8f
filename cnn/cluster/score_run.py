"""A scoring run: from folders of images and a bundle to predictions, evaluation and report."""

import time

import pyarrow as pa

from cnn import bundle
from cnn.bundle import Bundle
from cnn.cluster import capacity, nodes, scoring, scoring_plan
from cnn.cluster.passes import make_all
from cnn.cluster.progress import patiently
from cnn.cluster.scoring_plan import ScoringPlan
from cnn.cluster.session import session
from cnn.config import ScoreConfig
from cnn.dataset.census import without_images
from cnn.dataset.parts import Parts, most_rows
from cnn.dataset.pixels import Decode
from cnn.errors import UserError
from cnn.files.atomic import write_atomically
from cnn.files.place import place
from cnn.manifest import Manifest
from cnn.report.comparison import lost
from cnn.report.evaluation import Evaluation, evaluate
from cnn.report.mix import Mix, take_mix
from cnn.report.scoring import Baseline, Summary, scoring_report, summarise_scores
from cnn.report.suspicion import suspects
from cnn.report.thumbnail import SIDE, thumbnails
from cnn.scoring.prediction import uncertain
from cnn.scoring.score_folder import ScoreFolder, checksums
from cnn.scoring.scoring_job import ScoringJob
from cnn.scoring.sort_run import sort, sorted_folder
from cnn.scoring.spreadsheet import write_csv
from cnn.scoring.worklist import list_images, spelled_as
from cnn.text.console import Advance, Console
from cnn.text.plural import counted, explained


def score(settings: ScoreConfig, console: Console) -> None:
    """Score folders of images, each image once, and write the run folder.

    The same call resumes an interrupted run. It scores nothing in a finished one, but still sorts.
    """
    nodes.require_lasting(place(settings.out))
    if settings.sort_into is not None:
        nodes.require_lasting(place(settings.sort_into), "--sort-into")
    folder = bundle.find(place(settings.model))
    job = list_work(settings, bundle.load(folder).with_test_time_flip(settings.tta))
    run, sums = job.run, checksums(folder)
    run.check(settings, job.work.manifest)
    run.check_model(sums)
    into = sorted_folder(job, sums)
    if run.finished:
        console.say(f"{run.path} is finished: nothing to score; give another --out to start again")
    else:
        check_other(job)
        capacity.require_any(settings.pool.gpu)
        run.check_parts(job.parts)
        introduce(job, console)
        with run.begun(settings, job.work.manifest):
            run.begin_with(job.work.manifest, sums)
            seconds, images = score_missing(job, console)
            conclude(job, seconds, images, console)
    if into is not None:
        sort(job, into, console)
    announce(run, console)


def list_work(settings: ScoreConfig, model: Bundle) -> ScoringJob:
    """List the images and cut them into parts."""
    labels = place(settings.labels) if settings.labels else None
    work = list_images(settings.images, model.card.classes, labels)
    run = ScoreFolder(place(settings.out))
    return ScoringJob(settings, run, model, work, Parts.of(work.manifest, model.card.image_size))


def introduce(job: ScoringJob, console: Console) -> None:
    """Print which images will be scored, and with which model."""
    card, work = job.model.card, job.work
    images, ignored = work.manifest.table.num_rows, work.manifest.ignored
    labelled = images - work.manifest.table["label"].null_count
    some = f", {labelled:,} of them labelled" if labelled else " without labels"
    labels = " labelled" if labelled == images else some
    console.say(f"data     {counted(images, 'image')}{labels}, {explained('ignored', ignored)}")
    for line in unknown_labels(job) + remarks(job):
        console.say(f"         {line}")
    flip = ", each with its mirror image" if card.test_time_flip else ""
    console.say(
        f"model    {job.settings.model}: {card.network.network}, "
        f"{len(card.classes)} classes, {card.image_size} pixels{flip}"
    )


def remarks(job: ScoringJob) -> list[str]:
    """Remarks on the folders and the labels for the user, a line each."""
    work, classes = job.work, job.model.card.classes
    lines = without_images(work.manifest.empty_folders)
    for number, folder in enumerate([] if work.labelled else job.settings.images):
        if split := work.split_in(number, classes):
            better = place(folder) / split
            lines.append(f"no labels, because {folder} holds splits: give {better} to evaluate")
    if work.unmatched:
        lines.append(f"not in the folders: {counted(work.unmatched, 'image')} of the labels")
    if work.empty_labels:
        lines.append(f"with an empty label: {counted(work.empty_labels, 'image')} of the labels")
    return lines + unknown_to_other(job)


def unknown_labels(job: ScoringJob) -> list[str]:
    """The line about labels that are no class of the model; none if there are none."""
    unknown = job.work.unknown(job.model.card.classes)
    return [f"not evaluated: {outside(unknown, 'the model')}"] if unknown else []


def unknown_to_other(job: ScoringJob) -> list[str]:
    """The line about labels that the other run's model cannot predict; none if there are none."""
    name, classes = job.settings.compare, job.model.card.classes
    if name is None or not (theirs := Summary.read(ScoreFolder(place(name)).summary).predicted):
        return []  # an earlier version's summary names no classes
    known = set(spelled_as(classes, pa.array(list(theirs), pa.string())).to_pylist())
    judged = set(classes) - known
    unknown = {label: n for label, n in job.work.unknown(known).items() if label in judged}
    return [f"always wrong in {name}: {outside(unknown, 'its model')}"] if unknown else []


def outside(labels: dict[str, int], model: str) -> str:
    """How many images have labels that are no class of a model, and the first of these labels."""
    names = ", ".join(list(labels)[:5]) + (", …" if len(labels) > 5 else "")
    images = counted(sum(labels.values()), "image")
    return f"{images} with a label that is no class of {model}: {names}"


def score_missing(job: ScoringJob, console: Console) -> tuple[float, int]:
    """Score the missing parts; returns the seconds it took and the number of images in them."""
    before = total = len(job.manifest)
    before -= sum(len(job.parts[number]) for number in job.run.missing(job.parts))
    if before == total:
        return 0.0, 0
    if before:
        console.say(f"{before:,} of {total:,} images are scored already")
    with session(scoring_plan.logical_cpus(job.settings.pool)):
        missing = len(job.run.missing(job.parts))
        image_size = job.model.card.image_size
        plan = scoring_plan.plan(job.settings.pool, missing, image_size, console)
        for root in job.work.roots:
            nodes.require_shared_images(root.place)
        console.say(f"plan     {plan}")
        started = time.monotonic()
        with console.bar("score", "images") as advance:
            patiently(
                lambda: make_all(
                    missing=lambda: job.run.missing(job.parts),
                    attempt=lambda left, isolated: score_parts(job, left, plan, isolated, advance),
                    console=console,
                )
            )
    return time.monotonic() - started, total - before


def score_parts(
    job: ScoringJob, missing: list[int], plan: ScoringPlan, isolated: bool, advance: Advance
) -> None:
    """Score the missing parts, and commit each as soon as it is ready."""
    card, total = job.model.card, len(job.manifest)
    done = total - sum(len(job.parts[number]) for number in missing)
    advance(done, total)
    pixels = Decode(job.work.roots, card.image_size, card.fit, isolated)
    work = ((number, job.parts[number]) for number in missing)
    for number, table in scoring.score(work, pixels, job.model, plan.refitted()):
        job.run.commit(number, table)
        done += len(table)
        advance(done, total)


def conclude(job: ScoringJob, seconds: float, images: int, console: Console) -> None:
    """Check that no image is missing; write tables, evaluation, summary and, last, the report."""
    run, settings, classes = job.run, job.settings, job.model.card.classes
    run.seal(job.parts)
    write_csv(run.csv, job.predictions())
    if settings.min_confidence is not None:
        limit = settings.min_confidence
        write_csv(run.uncertain, (uncertain(table, limit) for table in job.predictions()))
    mix = take_mix(job.predictions(), classes, settings.min_confidence)
    evaluation = evaluated(job, mix, console) if job.work.labelled else None
    if evaluation is not None:
        write_csv(run.suspects, suspects(job.predictions(), evaluation))
    baseline = baseline_of(settings)
    if evaluation is not None and baseline is not None:
        before = baseline.predictions()
        write_csv(run.lost, lost(job.predictions(), before, classes, baseline.name))
    scored = summarise_scores(job.predictions, mix, evaluation, baseline)
    ignored = job.work.manifest.ignored
    summary = Summary.of(scored, len(job.manifest), ignored, seconds, images)
    summary.write(run.summary)
    if scored.evaluation is not None:
        scored.evaluation.write(run.evaluation)
    look = thumbnails(
        Decode(job.work.roots, SIDE, job.model.card.fit, isolated=True),
        job.manifest,
        most_rows(SIDE),
    )
    # An evaluation counts the unknown labels, and has the comparison.
    undone = [] if scored.evaluation else unknown_labels(job) + uncompared(settings)
    title, notes = run.path.resolve().name, undone + remarks(job)
    resumed = images < len(job.manifest)
    page = scoring_report(title, settings, scored, summary, notes, job.predictions, look, resumed)
    write_atomically(run.report, page)


def evaluated(job: ScoringJob, mix: Mix, console: Console) -> Evaluation | None:
    """The evaluation; None if no image has both a prediction and a known label."""
    counts = {"images": len(job.manifest), "unreadable": mix.unreadable.total()}
    try:
        return evaluate(job.predictions(), job.model.card.classes, counts)
    except ValueError as error:
        for line in [f"no evaluation: {error}", *uncompared(job.settings)]:
            console.say(line)
        return None


def uncompared(settings: ScoreConfig) -> list[str]:
    """The line of a run without evaluation, if it was to be compared with another run."""
    name = settings.compare
    return [] if name is None else [f"no comparison with {name}: nothing to compare"]


def baseline_of(settings: ScoreConfig) -> Baseline | None:
    """The run to compare with."""
    if settings.compare is None:
        return None
    return Baseline(settings.compare, ScoreFolder(place(settings.compare)).written)


def check_other(job: ScoringJob) -> None:
    """Raises UserError if no label is known, or the other run is unfinished or of other images."""
    if (name := job.settings.compare) is None:
        return
    if not set(job.model.card.classes).intersection(job.manifest["label"].unique().to_pylist()):
        raise UserError(
            "--compare needs labels that are classes of the model: give --labels, or a folder per "
            "class"
        )
    other = ScoreFolder(place(name))
    if not (other.success.is_file() and other.finished):
        raise UserError(f"--compare {name} holds no finished scoring run: give the --out of one")
    theirs = Manifest.read(other.manifest).table
    # Not the times: those of a copy may differ.
    for column, found in (("path", "other images"), ("size", "other images of the same names")):
        if not theirs[column].equals(job.manifest[column]):
            raise UserError(
                f"--compare {name} scored {found}: score the same folders with both models"
            )


def announce(run: ScoreFolder, console: Console) -> None:
    """Print the headlines and the path of the run folder."""
    console.result(Summary.read(run.summary).headline)
    if run.evaluation.is_file():
        console.result(Evaluation.read(run.evaluation).headline)
    console.result(f"wrote {run.path}")
