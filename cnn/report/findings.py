"""Findings: what the numbers of a run show, in words, each with a next step."""

from collections.abc import Iterator
from math import ceil
from statistics import median

from cnn.dataset.census import Census
from cnn.metrics import shortfall, wilson_interval
from cnn.report.evaluation import ClassScores, Comparison, Evaluation, Finding
from cnn.report.mix import Mix
from cnn.text.plural import by_reason, counted
from cnn.text.ratio import percent

TROUBLED = 3  # weak classes that are named
ONE_WAY = 0.3  # of a class's mistakes are predicted as one other class
GAP, CLOSE = 0.10, 0.04  # between the accuracy on training and on test images
IMBALANCE = 3.0  # times the images of the smallest class
TRUSTED = 0.8  # least accuracy of a network whose suspected labels are worth a finding
SUSPECTS = 0.02  # of the judged images
MISJUDGED = 0.03  # between confidence and accuracy
BLURRED = 0.10  # half the width of an interval of recall
GOALS = (0.99, 0.95, 0.9, 0.8)  # accuracies that a user may require
LEAST_GAIN = 0.02  # of accuracy
SHORTFALL = 0.025  # how far below a goal the 95% interval of the accepted answers may reach
WORTHWHILE = 0.3  # least share of images answered for a goal to be useful
UNCERTAIN, DOMINANT = 0.2, 0.5  # of the scored images
CHANCE = 0.05
Z = 1.96


def findings_of_training(evaluation: Evaluation, census: Census, balance: str) -> list[Finding]:
    """The findings of a training run; `balance` is the setting it was trained with."""
    return [
        *troubled_classes(evaluation),
        *over_fitting(evaluation),
        *suspected_labels(evaluation),
        *calibration(evaluation),
        *imbalance(census, balance),
        *files(census),
        *small_test(evaluation),
        *acceptance(evaluation),
    ]


def findings_of_scoring(mix: Mix, evaluation: Evaluation | None) -> list[Finding]:
    """The findings of a scoring run."""
    found = [*unanswered(mix), *unreadable(mix), *uncertainty(mix), *one_sided(mix)]
    if evaluation is None:
        return found
    comparison = evaluation.comparison
    return [
        *(change(comparison) if comparison else ()),
        *troubled_classes(evaluation),
        *suspected_labels(evaluation),
        *calibration(evaluation),
        *found,
        *small_test(evaluation),
        *acceptance(evaluation),
    ]


def troubled_classes(evaluation: Evaluation) -> Iterator[Finding]:
    """The classes that are recognised significantly worse than images overall."""
    judged = [row for row in evaluation.per_class if row.support]
    # Bonferroni: among many classes, some are far below the accuracy by chance alone.
    rare, accuracy = CHANCE / 2 / len(judged), evaluation.accuracy
    rows = [row for row in judged if shortfall(_right(row), row.support, accuracy) < rare]
    for row in sorted(rows, key=lambda row: row.f1)[:TROUBLED]:
        interval = wilson_interval(_right(row), row.support)
        recall, overall, low, high = _percents(row.recall, accuracy, *interval)
        goes = _goes_to(evaluation, evaluation.classes.index(row.class_name))
        yield Finding(
            title=f"{row.class_name} is recognised {recall} of the time",
            text=f"That is {_right(row):,} of {counted(row.support, 'image')} "
            f"(95% interval {low} to {high}), against {overall} of all images. {goes}",
            step=_against_confusion(evaluation, evaluation.classes.index(row.class_name)),
        )


def _right(row: ClassScores) -> int:
    """How many of a class's images are recognised."""
    return round(row.recall * row.support)


def _percents(*shares: float) -> list[str]:
    """Shares as percents, with the fewest decimals, at most two, that tell them apart."""
    for digits in (0, 1, 2):
        texts = [f"{share:.{digits}%}" for share in shares]
        whole = sum(float(text[:-1]) in (0, 100) for text in texts)
        if len(set(texts)) == len(set(shares)) and whole == sum(x in (0, 1) for x in shares):
            break
    return texts


def _goes_to(evaluation: Evaluation, label: int) -> str:
    """The classes that a class is most often predicted as, as a sentence."""
    counts = evaluation.confusion_matrix[label]
    support = sum(counts)
    others = sorted((c for c in range(len(counts)) if c != label), key=lambda c: -counts[c])[:2]
    goes = [
        f"{_percents(counts[c] / support)[0]} {'are predicted as' if number == 0 else 'as'} "
        f"{evaluation.classes[c]}"
        for number, c in enumerate(c for c in others if counts[c])
    ]
    return f"Of its images, {' and '.join(goes)}."


def _against_confusion(evaluation: Evaluation, label: int) -> str:
    """What helps a class: the advice depends on whether one other class gets most mistakes."""
    mistakes = list(evaluation.confusion_matrix[label])
    mistakes[label] = 0
    most = max(range(len(mistakes)), key=lambda other: mistakes[other])
    if mistakes[most] >= ONE_WAY * sum(mistakes):
        other = evaluation.classes[most]
        return (
            f"Look at the images predicted as {other} in the matrix below. If people cannot tell "
            "the two classes apart either, merge them; otherwise add images of both that show the "
            "difference."
        )
    return (
        "Its mistakes are spread over many classes. Check its labels, and add training images that "
        "show more of its variety."
    )


def over_fitting(evaluation: Evaluation) -> Iterator[Finding]:
    """Over-fitting, or room to learn more: training images against test images, scored alike."""
    train, test = evaluation.train_accuracy, evaluation.accuracy
    if train is None:
        return
    figures = (
        f"The model recognises {percent(train)} of a sample of its training images, and "
        f"{percent(test)} of the test images."
    )
    # A small test may be far from the truth by chance.
    if train - test > GAP and train > evaluation.accuracy_interval[1]:
        yield Finding(
            title=f"The model over-fits by {100 * (train - test):.0f} points",
            text=figures,
            step="Add training images, augment more (--rotation, --shift, --zoom), or raise "
            "--dropout or --weight-decay. A search (jobs.tune) finds good values of them.",
        )
    elif train - test < CLOSE and train < 1 - GAP:
        yield Finding(
            title="The model has room to learn more",
            text=f"{figures} It is hardly better on images that it has learned.",
            step="Train for longer (--epochs), or use a larger network (--filters).",
        )


def suspected_labels(evaluation: Evaluation) -> Iterator[Finding]:
    """Many labels that confident learning suspects, by a network that is mostly right."""
    suspects, judged = evaluation.label_suspects or 0, evaluation.images["judged"]
    if evaluation.accuracy >= TRUSTED and suspects >= SUSPECTS * judged:
        yield Finding(
            title=f"{counted(suspects, 'label')} may be wrong",
            text=f"The network predicts another class for {suspects:,} of {judged:,} images, with "
            "at least the confidence that images of that class usually get. Some of these will be "
            "mistakes of the network, not of the labels.",
            step="Check the suspected label errors: the most suspicious are shown below, and "
            "suspects.csv lists all. Correct the labels that are wrong.",
        )


def calibration(evaluation: Evaluation) -> Iterator[Finding]:
    """Over- or under-confidence beyond what chance explains."""
    confidence, (low, high) = evaluation.mean_confidence, evaluation.accuracy_interval
    if low <= confidence <= high:
        return
    excess = confidence - evaluation.accuracy
    if abs(excess) >= MISJUDGED:
        yield Finding(
            title=f"The model is {'over' if excess > 0 else 'under'}-confident "
            f"by {100 * abs(excess):.0f} points",
            text=f"Its mean confidence is {percent(confidence)}, while "
            f"{percent(evaluation.accuracy)} of its answers are right.",
            step="Choose a confidence threshold by the accuracy that it gives (see Confidence, "
            "below), not by the confidence itself.",
        )


def imbalance(census: Census, balance: str) -> Iterator[Finding]:
    """Training classes of very different sizes."""
    sizes = {name: row["train"] for name, row in census.counts.items() if row["train"]}
    if census.imbalance >= IMBALANCE:
        most, least = max(sizes, key=lambda name: sizes[name]), min(sizes, key=lambda n: sizes[n])
        more = ", or train with --balance sampling" if balance == "none" else ""
        yield Finding(
            title=f"Class sizes differ by up to {census.imbalance:.1f} to 1",
            text=f"{most} has {sizes[most]:,} training images and {least} {sizes[least]:,}.",
            step=f"Collect images of the rare classes{more}; compare models by macro F1, in which "
            "every class counts the same.",
        )


def files(census: Census) -> Iterator[Finding]:
    """Files that could not be used, or should not be trusted."""
    yield from broken(census.unreadable, "Replace or remove them; they are listed below.")
    if census.conflicts:
        yield Finding(
            title=f"Identical images under more than one label: {len(census.conflicts):,}",
            text="Identical files are in folders of different classes, so one image has more than "
            "one right answer.",
            step="Keep each image in the folder of one class. Identical images have the same "
            "content_hash in manifest.parquet.",
        )
    if census.duplicates:
        yield Finding(
            title=f"Exact copies in the data: {census.duplicates:,}",
            text="Copies are always on the same side of the split. They count more than once, and "
            "add no information.",
            step="Remove the copies; they have the same content_hash in manifest.parquet.",
        )


def small_test(evaluation: Evaluation) -> Iterator[Finding]:
    """A test too small to tell classes apart."""
    rows = [row for row in evaluation.per_class if row.support]
    images = int(median(row.support for row in rows))
    share = sum(row.recall for row in rows) / len(rows)
    low, high = wilson_interval(round(share * images), images)
    if len(rows) > 1 and (half := (high - low) / 2) > BLURRED:
        enough = ceil(Z * Z * max(share * (1 - share), 0.05) / 0.05**2)
        yield Finding(
            title="The test is too small to compare classes",
            text=f"At least half of the classes have {counted(images, 'test image')} or fewer. "
            f"With that many, recall is known to within about {100 * half:.0f} points (95% "
            "interval), and a smaller difference between two classes may be chance.",
            step=f"With about {enough:,} test images per class, recall would be known to within 5 "
            "points.",
        )


def acceptance(evaluation: Evaluation) -> Iterator[Finding]:
    """The effect of accepting only confident answers."""
    judged = evaluation.images["judged"]
    for goal in GOALS:
        point = next((p for p in evaluation.coverage if p.accuracy >= goal), None)
        # A few answers may all be right by luck; among many thresholds, some are lucky.
        answered = round(point.coverage * judged) if point else 0
        if wilson_interval(round(goal * answered), answered)[0] < goal - SHORTFALL:
            continue
        if point and goal > evaluation.accuracy + LEAST_GAIN and point.coverage >= WORTHWHILE:
            yield Finding(
                title=f"{percent(point.coverage, 0)} of the images can be answered with {goal:.0%} "
                "accuracy",
                text=f"Of the answers with a confidence of {point.confidence:.2f} or more, "
                f"{percent(point.accuracy)} are right on these images.",
                step=f"Score with --min-confidence {point.confidence:g}: the others are listed in "
                "uncertain.csv, for a person to check.",
            )
            return


def change(comparison: Comparison) -> Iterator[Finding]:
    """Whether one of two models is significantly better than the other."""
    if not comparison.judged:
        return
    gained, lost, p = comparison.gained, comparison.lost, comparison.p_value
    better_now = counted(gained, "image is right now and was", "images are right now and were")
    figures = (
        f"{better_now} wrong in {comparison.other}, {lost:,} the reverse. If the two "
        "models were equally good, a difference at least this large would have a probability "
        f"of {p:.2g} (McNemar's exact test)."
    )
    if p >= CHANCE:
        title = "These images do not show which of the two models is better"
        step = "Compare them on more images, or choose the cheaper one."
    else:
        better = gained > lost
        title = f"{'This' if better else 'The other'} model is significantly better"
        # What the better model gets wrong and the other right.
        costs = "from right to wrong" if better else "from wrong to right"
        step = f"Check the images that changed {costs} before you choose it."
        if not min(gained, lost):
            step = "Choose it: it has right whatever the worse one has right."
    yield Finding(title=title, text=figures, step=step)


def unreadable(mix: Mix) -> Iterator[Finding]:
    """Files without pixels."""
    reasons = dict(mix.unreadable.most_common())
    step = "Replace them and score them with another --out; they are listed below."
    yield from broken(reasons, step)


def unanswered(mix: Mix) -> Iterator[Finding]:
    """Images for which the network computes no probabilities."""
    if mix.no_prediction:
        yield Finding(
            title=f"{counted(mix.no_prediction, 'image')} got no prediction",
            text="What the network computes for them is not a number: the model's weights are "
            "damaged.",
            step="Copy the model again, or train it again, and score with another --out.",
        )


def broken(reasons: dict[str, int], step: str) -> Iterator[Finding]:
    """Files that could not be read, by reason."""
    if number := sum(reasons.values()):
        title = f"{counted(number, 'file')} could not be read"
        yield Finding(title=title, text=f"By reason: {by_reason(reasons)}.", step=step)


def uncertainty(mix: Mix) -> Iterator[Finding]:
    """Many answers with less confidence than `min_confidence`."""
    some = "them" if mix.uncertain < 300 else "a few hundred of them"
    if mix.scored and mix.uncertain >= UNCERTAIN * mix.scored:
        yield Finding(
            title=f"{percent(mix.uncertain / mix.scored, 0)} of the answers are uncertain",
            text=f"{mix.uncertain:,} of {mix.scored:,} are below --min-confidence.",
            step=f"Check those in uncertain.csv, label {some} and train with them: a model learns "
            "the most from these.",
        )


def one_sided(mix: Mix) -> Iterator[Finding]:
    """A class that takes most of the images."""
    if not mix.scored or len(mix.classes) < 3:
        return
    most = int(mix.images.argmax())
    if (share := mix.images[most] / mix.scored) > DOMINANT:
        yield Finding(
            title=f"{percent(share, 0)} of the images are predicted as {mix.classes[most]}",
            text="One class gets more images than all the others together.",
            step="If you did not expect that, check that the images are like those that the model "
            "was trained on.",
        )
