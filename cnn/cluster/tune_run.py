"""A tuning run: from images to a leaderboard, the best settings, and the best model evaluated."""

import time
from collections.abc import Mapping
from dataclasses import replace

import yaml

from cnn.cluster import capacity, nodes, training, tuning, tuning_plan
from cnn.cluster.prepare_run import PREPARE_CPUS, shared_dataset
from cnn.cluster.search_state import read_state
from cnn.cluster.session import session
from cnn.cluster.train_run import announce, keep, record_splits, test
from cnn.cluster.training import Trained
from cnn.cluster.trials import TrialContext
from cnn.cluster.tuning import EndedTrial
from cnn.cluster.tuning_plan import TuningPlan
from cnn.config import Resources, Search, TrainConfig, TuneConfig, image_bytes
from cnn.dataset.prepared import Prepared
from cnn.dataset.source import Source, default_out, find_source, prepared_folder, resized
from cnn.errors import UserError
from cnn.files.atomic import write_atomically
from cnn.files.place import place
from cnn.report.training import training_report
from cnn.report.tuning import Tuning, leaderboard
from cnn.runs import preflight
from cnn.runs.run_folder import TuneFolder, saved
from cnn.search import study
from cnn.search.space import Space, default_space, read_space
from cnn.text.console import Console

RETRAINED = "the best settings, on training and validation images: no accuracy on validation"


def tune(settings: TuneConfig, console: Console) -> None:
    """Search for the best settings, evaluate the best model on the test split, write the folder.

    The same call resumes an interrupted search, and leaves a finished one alone.
    """
    started = time.monotonic()
    run = TuneFolder(place(settings.out or f"{default_out(settings.images)}-tune"))
    nodes.require_lasting_folders(settings, run)
    source = find_source(settings, run)
    settings = settings.model_copy(update={"data": source.settings})
    base = settings.given()
    space = space_of(settings.search, base)
    check(settings, source, space, run)
    sources = {size: resized(source, size) for size in space.image_sizes}
    if run.finished:
        console.say(f"{run.path} is finished: nothing to do; give another --out to start again")
        announce(run, console)
        return
    capacity.require_any(settings.resources.gpu)
    held = held_bytes(base.resources, len(source.manifest.table), max(space.image_sizes))
    before = read_state(run.trials)
    cpus = tuning_plan.logical_cpus(settings, held, before)
    with session(max(PREPARE_CPUS, cpus), searching=True):
        plan = tuning_plan.plan(settings, held, console, before)
        nodes.require_shared_folder(run.path)
        with run.begun(settings, source.manifest):
            search_and_report(settings, sources, space, run, plan, console, started)
    announce(run, console)


def search_and_report(
    settings: TuneConfig,
    sources: Mapping[int, Source],
    space: Space,
    run: TuneFolder,
    plan: TuningPlan,
    console: Console,
    started: float,
) -> None:
    """Prepare, search and evaluate the winner, and write the run folder, its report last."""
    resumed, base = run.manifest.is_file(), space.base
    start = space.settings(space.start)
    run.check_space(space.as_yaml())
    write_atomically(run.space, space.as_yaml())
    datasets = {
        size: shared_dataset(one, prepared_folder(one, settings, run), console)
        for size, one in sources.items()
    }
    first = datasets[start.data.image_size]
    census = record_splits(first, base, run, plan.training_plan)
    briefing = preflight.describe(census, start, str(plan), console)
    folders = {size: dataset.folder for size, dataset in datasets.items()}
    context = TrialContext(space, folders, plan, run.trials.resolve())
    tried = tuning.search(context, settings.search, settings.seed, console)
    summary, winner = conclude(tried, space, run)
    best = space.settings(winner.trial.point)
    dataset = datasets[best.data.image_size]
    validated = not settings.search.retrain
    lines = {
        **briefing.lines,
        "network": preflight.network_line(best, len(dataset.classes)),
        "plan": preflight.plan_line(census, best, str(plan)),
        **({} if validated else {"retrained": RETRAINED}),
    }
    briefing = replace(briefing, lines=lines)
    if validated:
        trained = as_trained(winner)
    else:
        trained = calibrated(retrain(best, dataset, run, plan, console), winner)
    keep(trained, run)
    pool = plan.training_plan.scoring(dataset.card.image_size)
    result = test(dataset, census, best, run, pool, console, validated)
    seconds, title = time.monotonic() - started, run.path.resolve().name
    page = training_report(
        title, settings, dataset, result, seconds, resumed, briefing, summary, best
    )
    write_atomically(run.report, page)


def held_bytes(resources: Resources, images: int, image_size: int) -> int:
    """Bytes of images that a worker keeps in memory; 0 if they are streamed."""
    return image_bytes(images, image_size) if resources.fits_in_memory(images, image_size) else 0


def space_of(search: Search, base: TrainConfig) -> Space:
    """The search space: from the user's --space file, or the default."""
    return read_space(search.space, base) if search.space else default_space(base)


def check(settings: TuneConfig, source: Source, space: Space, run: TuneFolder) -> None:
    """Raises UserError if no network can be built, or if the folder holds something else."""
    start = space.settings(space.start)
    preflight.check_network(start.network, start.data, source.manifest)
    run.check(settings, source.manifest)
    run.check_space(space.as_yaml())
    if not run.manifest.is_file():  # a search that has begun keeps its trials
        space.require_points(settings.search.trials)


def conclude(tried: list[EndedTrial], space: Space, run: TuneFolder) -> tuple[Tuning, EndedTrial]:
    """Write leaderboard.csv and best.yaml; return search and winner. UserError if all failed."""
    trials = [one.trial for one in tried]
    compared = [(trial.point, trial.accuracy or 0.0) for trial in trials if trial.comparable]
    importances = study.importances(space.ranges, compared, space.base.seed)
    summary = Tuning(trials, space.ranges, importances, space.holds_given)
    write_atomically(run.leaderboard, leaderboard(trials).to_csv(index=False))
    if summary.best is None:
        raise UserError(
            f"every trial failed, the first of {len(trials)} because {trials[0].reason}: "
            "give other settings and another --out"
        )
    best = saved(space.settings(summary.best.point))
    del best["out"]
    write_atomically(run.best, yaml.safe_dump(best, sort_keys=False))
    return summary, next(one for one in tried if one.trial is summary.best)


def as_trained(tried: EndedTrial) -> Trained:
    """The best trial as a training result: its bundle and history."""
    rows = tried.epochs.to_dict("records")
    return Trained(tried.best(), rows)


def calibrated(trained: Trained, winner: EndedTrial) -> Trained:
    """The retrained model with the confidence of its twin, which had validation images."""
    temperature = winner.best().card.temperature
    return replace(trained, best=trained.best.with_temperature(temperature))


def retrain(
    best: TrainConfig, dataset: Prepared, run: TuneFolder, plan: TuningPlan, console: Console
) -> Trained:
    """Train again with the best settings, to the last epoch, on the validation images too."""
    console.say(f"retrain  {RETRAINED}")
    # Early stopping needs held-out validation images, and now there are none.
    to_the_end = best.training.model_copy(update={"patience": None})
    best = best.model_copy(update={"training": to_the_end})
    out = run.path / "retrained"
    out.mkdir(parents=True, exist_ok=True)
    return training.fit(best, dataset, out, plan.training_plan, console, ("train", "validation"))
