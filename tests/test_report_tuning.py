"""Laws of a search's report: every trial counted, the best one shown, no value executed."""

import random
import re
import warnings
from collections import Counter
from dataclasses import replace
from io import StringIO
from typing import Any

import pandas as pd
import pytest

from cnn.report.evaluation import evaluate
from cnn.report.page import Report, render
from cnn.report.tuning import Trial, Tuning, leaderboard, ranked
from cnn.report.tuning_figures import trial_curves, trial_slice
from cnn.settings.ranges import Choice, Integer, LogUniform, Range, Uniform
from tests.test_report import FACTS, HOSTILE, IMAGES, Elements, predictions

RANGES: dict[str, Range] = {
    "lr": LogUniform(5e-4, 2e-2),
    "optimizer": Choice(("adamw", "sgd", "rmsprop")),
    "stages": Integer(2, 6),
    "dropout": Uniform(0.0, 0.5),
}
POINT = {"lr": 0.003, "optimizer": "adamw", "stages": 5, "dropout": 0.3}


def trial(number: int, accuracy: float | None = 0.5, **more: Any) -> Trial:
    """A trial of 9 epochs that ran to its end, unless `more` says otherwise."""
    known: dict[str, Any] = {
        "number": number,
        "point": POINT,
        "outcome": "finished",
        "epochs": 9,
        "epochs_asked": 9,
        "accuracy": accuracy,
        "seconds": 30.0,
    }
    known |= more
    learned = accuracy or 0.0
    epochs = range(1, known["epochs"] + 1) if accuracy is not None else ()
    return Trial(**known, history=tuple((e, learned * e / known["epochs"]) for e in epochs))


def stopped(number: int, accuracy: float = 0.2, epochs: int = 3) -> Trial:
    return trial(number, accuracy, outcome="stopped", epochs=epochs)


def failed(number: int, accuracy: float | None = None, reason: str = "out of memory") -> Trial:
    return trial(number, accuracy, outcome="failed", epochs=1, reason=reason)


def many(count: int, dimensions: int) -> Tuning:
    """Random trials over this many dimensions, most of them stopped early."""
    draw = random.Random(count)
    kinds = list(RANGES.items())
    ranges = {f"{kinds[i % 4][0]}_{i}": kinds[i % 4][1] for i in range(dimensions)}
    trials = []
    for number in range(count):
        point = {name: anywhere(limits, draw) for name, limits in ranges.items()}
        made = trial(number, draw.random()) if number % 4 == 0 else stopped(number, draw.random())
        trials.append(replace(made, point=point))
    return Tuning(trials, ranges, {})


def anywhere(limits: Range, draw: random.Random) -> Any:
    match limits:
        case Choice(values):
            return draw.choice(values)
        case Integer(low, high):
            return draw.randint(low, high)
        case _:
            return draw.uniform(limits.low, limits.high)


def page(tuning: Tuning) -> str:
    evaluation = evaluate([predictions(["a", "b"])], ["a", "b"], IMAGES)
    return render(Report(title="A search", evaluation=evaluation, facts=FACTS, tuning=tuning))


def dots(svg: str) -> int:
    """The number of marks in a drawing, without its ticks."""
    return svg.count("<use ") - svg.count("tick_")


def words(html: str) -> str:
    return " ".join(Elements(html).text.split())


def test_the_leaderboard_ranks_every_trial_once_with_failed_ones_last() -> None:
    trials = [trial(0, 0.6), failed(1, 0.9), stopped(2, 0.7), trial(3, 0.7), trial(4, None)]
    table = leaderboard(trials)
    assert table["trial"].tolist() == [2, 3, 0, 1, 4]
    fixed = ["trial", "outcome", "epochs", "epochs_asked", "val_accuracy", "seconds"]
    assert table.columns.tolist() == [*fixed, *POINT, "reason"]
    assert table["reason"].tolist()[3] == "out of memory"


def test_searching_epochs_keeps_the_columns_of_epochs_run_and_asked() -> None:
    cut = replace(stopped(0, epochs=3), point={"epochs": 9, "lr": 0.1})
    table = leaderboard([cut])
    assert table.columns.is_unique
    assert (table["epochs"][0], table["epochs_asked"][0]) == (3, 9)


def test_values_are_read_back_from_the_leaderboard_file_unchanged() -> None:
    points = [{"units": 3, "flip": True, "lr": 1e-05}, {"units": None, "flip": False, "lr": 0.1}]
    trials = [replace(trial(number), point=point) for number, point in enumerate(points)]
    file = leaderboard(trials).to_csv(index=False)
    read = pd.read_csv(StringIO(file), dtype=str, keep_default_na=False)
    assert read["units"].tolist() == ["3", ""]
    assert read["flip"].tolist() == ["True", "False"]
    assert read["lr"].tolist() == ["1e-05", "0.1"]


def test_the_best_trial_tops_the_leaderboard_and_has_not_failed() -> None:
    trials = [trial(0, 0.6), failed(1, 0.9), stopped(2, 0.7), trial(3, 0.7)]
    assert Tuning(trials, RANGES, {}).best is trials[2] is ranked(trials)[0]
    assert Tuning([failed(0, 0.9), trial(1, None)], RANGES, {}).best is None


def test_the_cost_counts_every_trial_and_every_epoch() -> None:
    trials = [trial(0), stopped(1), stopped(2), failed(3), trial(4, epochs=6)]
    assert Tuning(trials, RANGES, {}).cost == (
        "5 trials were run, 2 stopped early, 1 failed. The search took 22 epochs; running every "
        "trial to its end would have taken 45."
    )
    assert (
        "1 trial was run, none stopped early. The search took 9 epochs"
        in Tuning([trial(0)], {}, {}).cost
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (trial(0, 0.612), "against the 61.2% of the given settings (trial 0)."),
        (stopped(0, 0.612), "61.2% of the given settings (trial 0, stopped after 3 of 9 epochs)."),
        (failed(0, 0.612), "61.2% of the given settings (trial 0, failed after 1 of 9 epochs)."),
        (failed(0), "the given settings (trial 0) reached no accuracy."),
        (trial(0, 0.8), "No trial did better than the given settings (trial 0)"),
    ],
)
def test_the_best_trial_is_compared_with_the_given_settings(given: Trial, expected: str) -> None:
    tuning = Tuning([trial(1, 0.7), given], RANGES, {})
    assert expected in tuning.gain
    assert ("validation accuracy of 70.0%" in tuning.gain) == (tuning.best is not given)
    text = words(page(tuning))
    assert tuning.cost in text
    assert tuning.gain in text
    assert "test accuracy above was measured once, for the best model only" in text


def test_the_nearest_settings_are_not_reported_as_the_given_ones() -> None:
    tuning = Tuning([trial(0, 0.8), trial(1, 0.7)], RANGES, {}, holds_given=False)
    text = words(page(tuning))
    nearest = "the settings nearest to those given that the space allows"
    assert f"No trial did better than {nearest} (trial 0)" in text
    assert f"Trial 0 has {nearest}." in text
    assert "trial 0: nearest to those given, and best" in text
    assert not re.search("the given settings|as given", text)


@pytest.mark.parametrize(("count", "dimensions"), [(1, 1), (3, 1), (200, 12)])
def test_a_page_is_complete_for_any_number_of_trials_and_dimensions(
    count: int, dimensions: int
) -> None:
    html = page(many(count, dimensions))
    seen = Elements(html)
    ids = Counter(value for name, value in seen.attributes if name == "id")
    links = {value for name, value in seen.attributes if name.endswith(("href", "src"))}
    assert max(ids.values()) == 1
    assert {link[1:] for link in links if link[0] == "#"} <= ids.keys()
    assert links and all(link.startswith(("#", "data:image/png")) for link in links)
    assert not re.search(r"https?:|//[a-z]|@import", html)
    assert html.count('aria-label="Validation accuracy by ') == dimensions + 1
    assert "too few trials to tell" in html
    assert len(html) < 1_000_000


def test_a_page_without_a_search_does_not_mention_one() -> None:
    evaluation = evaluate([predictions(["a", "b"])], ["a", "b"], IMAGES)
    html = render(Report(title="A run", evaluation=evaluation, facts=FACTS))
    assert not re.search(r"trial|search", words(html.split("<body>")[1]))


def test_trials_beyond_50_are_counted_and_failures_are_always_shown() -> None:
    good = [trial(number, 0.5) for number in range(60)]
    tuning = Tuning([*good, *(failed(n, reason=f"reason {n}") for n in (60, 61))], RANGES, {})
    html = page(tuning)
    shown, _, hidden = html.partition("<details>")
    assert shown.count("9 of 9") == 10
    assert hidden.count("9 of 9") == 40
    assert "and 10 more trials, in leaderboard.csv" in words(hidden)
    assert {"reason 60", "reason 61"} <= set(re.findall(r"reason \d+", hidden))


def test_a_page_is_written_if_no_trial_reached_an_accuracy() -> None:
    text = words(page(Tuning([failed(0), failed(1)], RANGES, {})))
    assert "No trial can be compared" in text
    assert "out of memory" in text


def test_settings_are_ordered_by_importance_and_the_others_follow() -> None:
    tuning = Tuning([trial(0), trial(1)], RANGES, {"stages": 0.7, "lr": 0.3})
    html = page(tuning)
    named = re.findall(r'aria-label="Validation accuracy by ([a-z]+)">', html)
    assert named == ["stages", "lr", "optimizer", "dropout"]
    assert "stages 70% lr 30%" in words(html.replace("<td", " <td").replace("</tr>", " "))
    assert '<rect width="100.0"' in html
    assert "too few trials to tell" not in html


@pytest.mark.parametrize("name", RANGES)
def test_a_slice_has_a_dot_per_trial_and_highlights_only_the_best(name: str) -> None:
    tuning = Tuning([trial(0), trial(1, 0.8), stopped(2), failed(3, 0.1), failed(4)], RANGES, {})
    svg = trial_slice(tuning, name)
    without = trial_slice(replace(tuning, trials=tuning.trials[:1]), name)
    accents = re.findall(r"<use [^>]*fill=\"var\(--accent\)", svg)
    assert dots(svg) == 4  # trial 4 has no accuracy, so no place on the axes
    assert dots(without) == 1
    assert len(accents) == 1


def test_the_curves_label_the_best_and_the_given_settings() -> None:
    tuning = Tuning([stopped(0), trial(7, 0.8), trial(2)], RANGES, {})
    assert {"trial 0: as given", "trial 7: best"} <= set(
        re.findall(r">([^<>]+)</text>", trial_curves(tuning))
    )
    alone = trial_curves(Tuning([trial(0)], RANGES, {}))
    assert "trial 0: as given, and best" in alone


def test_a_range_of_one_value_is_drawn_without_warnings() -> None:
    ranges: dict[str, Range] = {
        "lr": LogUniform(0.003, 0.003),
        "optimizer": Choice(("adamw",)),
        "stages": Integer(5, 5),
        "dropout": Uniform(0.3, 0.3),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ranges:
            trial_slice(Tuning([trial(0)], ranges, {}), name)


def test_the_same_search_gives_the_same_page_byte_for_byte() -> None:
    first, second = (page(many(30, 4)) for _ in range(2))
    assert first == second


def test_hostile_values_and_reasons_are_shown_as_text_and_never_executed() -> None:
    def search(texts: list[str], name: str) -> Tuning:
        ranges = {name: Choice(tuple(texts))}
        points = [{name: text} for text in texts]
        good = [replace(trial(n), point=point) for n, point in enumerate(points)]
        bad = [replace(failed(n + 9, reason=p[name]), point=p) for n, p in enumerate(points)]
        return Tuning([*good, *bad], ranges, {name: 1.0})

    hostile = Elements(page(search(HOSTILE, HOSTILE[1])))
    benign = Elements(page(search([12 * c for c in "abcdef"], 10 * "name")))
    assert hostile.tags == benign.tags
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]
    assert all(reason in hostile.text for reason in HOSTILE)
