"""Laws of the report: every image is counted, all text is escaped, the page is self-contained."""

import json
import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnn.config import TrainConfig
from cnn.files.atomic import write_atomically
from cnn.report.album import Album
from cnn.report.comparison import compare
from cnn.report.confusion import by_trouble, views
from cnn.report.evaluation import Evaluation, Shown, evaluate
from cnn.report.figures import RAMP, confusion_heatmap
from cnn.report.mix import take_mix
from cnn.report.page import Report, render
from cnn.report.provenance import settings_facts
from cnn.report.sections import class_rows, counts
from cnn.report.tally import ROWS, together
from cnn.scoring.prediction import SCHEMA

IMAGES = {"train": 80, "validation": 10, "test": 30, "unreadable": 1, "duplicates": 0}
FACTS = {"command": "python -m jobs.train photos --out run", "seed": "1"}
NONE = "\N{EN DASH}"
STYLE = Path(__file__).parents[1] / "cnn/report/templates/style.css"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onload='alert(3)",
    "{{ 7 * 7 }} $\\frac$ &amp;",
    "\x01\n]]></text></svg><svg onload=alert(4)>",
    "\u202egnp.exe 猫 \N{CAT}",
]


def predictions(
    classes: list[str], rows: int = 300, seed: int = 0, **columns: list[Any]
) -> pa.Table:
    """Random predictions, right more often than wrong, with the columns of predictions.parquet."""
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(len(classes)), (rows, 1)), axis=1)[:, :5]
    guesses = [[classes[i] for i in row] for row in order]
    true = np.where(rng.random(rows) < 0.6, order[:, 0], rng.integers(len(classes), size=rows))
    known = {
        "path": [f"{i}.jpg" for i in range(rows)],
        "label": [classes[label] for label in true],
        "predicted": [row[0] for row in guesses],
        "confidence": pa.array(rng.uniform(0.2, 1, rows).astype(np.float32)),
        "top_classes": guesses,
        "error": pa.nulls(rows, pa.string()),
    } | columns
    known["top_probabilities"] = [row and [1 / len(row)] * len(row) for row in known["top_classes"]]
    return pa.table(known, schema=SCHEMA)


def history(epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "train_accuracy": 1 - 0.9 / epoch,
            "val_loss": 1.2 / epoch,
            "val_accuracy": 0.8 - 0.7 / epoch,
        }
    )


def page(classes: list[str], **more: Any) -> str:
    evaluation = evaluate([predictions(classes)], classes, IMAGES)
    return render(Report(title="A run", evaluation=evaluation, facts=FACTS, **more))


MIX = take_mix([predictions([f"class {i}" for i in range(30)])], [f"class {i}" for i in range(30)])


class Elements(HTMLParser):
    """Every start tag and attribute, and all the text, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_row_is_evaluated_or_counted_with_its_reason() -> None:
    table = predictions(
        ["cat", "dog"],
        rows=6,
        label=["cat", "dog", None, "wolf", "cat", "dog"],
        predicted=["cat", "cat", "cat", "cat", None, None],
        error=[None, None, None, None, None, "truncated"],
    )
    images = evaluate([table], ["cat", "dog"], IMAGES).images
    reasons = {"no_label": 1, "unknown_class": 1, "no_prediction": 1, "truncated": 1}
    assert images == IMAGES | {"judged": 2, "unjudged": reasons}
    assert images["judged"] + sum(images["unjudged"].values()) == table.num_rows


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=5))
def test_evaluating_parts_equals_evaluating_the_whole_table(cuts: list[int]) -> None:
    table = predictions(
        list("abcdefg"),
        rows=60,
        label=["a", "b", None, "wolf", "c", "lynx"] * 10,
        error=[None] * 50 + ["truncated"] * 10,
    )
    edges = [0, *sorted(cuts), 60]
    parts = [table.slice(low, high - low) for low, high in pairwise(edges)]
    # Exactly equal: float64 adds this many float32 without rounding, in any order.
    assert evaluate(parts, list("abcdefg"), IMAGES) == evaluate([table], list("abcdefg"), IMAGES)


@pytest.mark.parametrize(
    ("add_up", "rows"), [(take_mix, 4), (lambda parts, c: evaluate(parts, c, IMAGES), ROWS)]
)
def test_each_part_is_freed_before_the_next_is_read(
    add_up: Callable[..., object], rows: int
) -> None:
    def parts() -> Iterator[pa.Table]:
        for seed in range(3):
            part = predictions(["a", "b"], rows=rows, seed=seed)
            seen.append(weakref.ref(part))
            yield part
            del part
            assert seen[-1]() is None

    seen: list[weakref.ref[pa.Table]] = []
    add_up(parts(), ["a", "b"])
    assert len(seen) == 3


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 20))
def test_parts_are_joined_in_order_and_only_as_many_as_needed(sizes: list[int], rows: int) -> None:
    parts = [pa.table({"part": pa.array([n] * size, pa.int64())}) for n, size in enumerate(sizes)]
    found = list(together(iter(parts), rows))
    numbers = [number for one in found for number in one["part"].to_pylist()]
    assert numbers == [number for number, size in enumerate(sizes) for _ in range(size)]
    assert all(len(one) >= rows for one in found[:-1])
    assert all(len(one) < rows + 9 for one in found)


def test_labels_unknown_to_the_model_are_listed_most_frequent_first() -> None:
    labels = ["wolf", "lynx", "a", "lynx", None, "elk"] + [f"{i:04d}" for i in range(300)]
    table = predictions(["a", "b"], rows=306, label=labels, error=[None] * 305 + ["bomb"])
    evaluation = evaluate([table], ["a", "b"], IMAGES)
    named = evaluation.unknown_classes
    assert list(named.items())[:3] == [("lynx", 2), ("0000", 1), ("0001", 1)]
    assert len(named) == 100
    assert evaluation.images["unjudged"]["unknown_class"] == 303


def test_an_evaluation_file_without_unknown_classes_can_be_read(tmp_path: Path) -> None:
    evaluation = evaluate([predictions(["a", "b"])], ["a", "b"], IMAGES)
    old = tmp_path / "evaluation.json"
    old.write_text(evaluation.model_dump_json(exclude={"unknown_classes"}))
    assert Evaluation.read(old) == evaluation


def test_the_confusion_matrix_counts_the_evaluated_rows() -> None:
    classes = ["a", "b", "c"]
    table = predictions(classes)
    evaluation = evaluate([table], classes, IMAGES)
    matrix = np.array(evaluation.confusion_matrix)
    label, predicted = table["label"].to_pylist(), table["predicted"].to_pylist()
    for true, guess in np.ndindex(3, 3):
        found = zip(label, predicted, strict=True)
        assert matrix[true, guess] == sum(row == (classes[true], classes[guess]) for row in found)
    assert [row.support for row in evaluation.per_class] == matrix.sum(axis=1).tolist()
    assert evaluation.accuracy == matrix.trace() / table.num_rows
    low, high = evaluation.accuracy_interval
    assert low < evaluation.accuracy < high


def test_the_order_of_the_rows_does_not_matter() -> None:
    classes = [f"class {i}" for i in range(8)]
    table = predictions(classes)
    shuffled = table.take(np.random.default_rng(1).permutation(table.num_rows))
    one, other = (evaluate([rows], classes, IMAGES).model_dump() for rows in (table, shuffled))
    # Sums of floats may differ in their last digits; everything else must be equal.
    for result in (one, other):
        result["calibration_error"] = pytest.approx(result["calibration_error"])
        result["calibration_counts"] = np.round(result["calibration_counts"], 6).tolist()
    assert one == other


def test_confused_pairs_are_mistakes_sorted_by_frequency() -> None:
    table = predictions(
        ["a", "b"], rows=10, label=["a"] * 6 + ["b"] * 4, predicted=list("aabbbbbbba")
    )
    pairs = evaluate([table], ["a", "b"], IMAGES).confused_pairs
    found = [(pair.true, pair.predicted, pair.count, pair.share) for pair in pairs]
    assert found == [("a", "b", 4, 4 / 6), ("b", "a", 1, 1 / 4)]


def test_top5_accuracy_counts_labels_among_the_first_five_classes() -> None:
    classes = list("abcdefg")
    guesses = [list("abcdefg"), list("bcdefag"), list("bcdeafg")]
    table = predictions(classes, rows=3, label=["a"] * 3, top_classes=guesses)
    assert evaluate([table], classes, IMAGES).top5_accuracy == 2 / 3


def test_top5_accuracy_is_none_if_it_cannot_be_known() -> None:
    table = predictions(list("abcdefg"), rows=2, top_classes=[list("abc"), list("abcde")])
    assert evaluate([table], list("abcdefg"), IMAGES).top5_accuracy is None
    assert evaluate([predictions(["only"])], ["only"], IMAGES).top5_accuracy is None


def test_one_part_with_fewer_guesses_leaves_top5_accuracy_unknown() -> None:
    full = predictions(list("abcdefg"), rows=2)
    short = predictions(list("abcdefg"), rows=1, top_classes=[["a"]])
    unjudged = predictions(list("abcdefg"), rows=1, top_classes=[None], error=["bomb"])
    assert evaluate([full, short], list("abcdefg"), IMAGES).top5_accuracy is None
    assert evaluate([full, unjudged], list("abcdefg"), IMAGES).top5_accuracy is not None


@pytest.mark.parametrize("rows", [0, 3])
def test_an_evaluation_of_no_images_is_refused(rows: int) -> None:
    table = predictions(["a", "b"], rows=rows, label=pa.nulls(rows))
    with pytest.raises(ValueError, match=r"no image can be evaluated: (3 no label|there are no)"):
        evaluate([table], ["a", "b"], IMAGES)
    with pytest.raises(ValueError, match="there are no predictions"):
        evaluate([], ["a", "b"], IMAGES)


def test_a_predicted_class_from_another_model_is_refused() -> None:
    table = predictions(["a", "b"], rows=2, predicted=["a", "zebra"])
    with pytest.raises(ValueError, match="zebra"):
        evaluate([table], ["a", "b"], IMAGES)


def test_an_evaluation_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    evaluation = evaluate([predictions(HOSTILE)], HOSTILE, IMAGES)
    evaluation.write(tmp_path / "evaluation.json")
    assert Evaluation.read(tmp_path / "evaluation.json") == evaluation
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_each_class_in_evaluation_json_has_the_documented_keys(tmp_path: Path) -> None:
    evaluate([predictions(["a", "b"])], ["a", "b"], IMAGES).write(tmp_path / "evaluation.json")
    columns = set(pd.read_json(tmp_path / "evaluation.json", typ="series")["per_class"][0])
    assert columns == {"class", "precision", "recall", "f1", "support"}


@pytest.mark.parametrize("count", [1, 2, 20, 200])
def test_a_page_is_written_for_any_number_of_classes(count: int) -> None:
    classes = [f"class {i}" for i in range(count)]
    html = page(classes, history=history(5))
    text = Elements(html).text
    assert all(name in text for name in classes)
    assert len(html) < 1_500_000


@pytest.mark.parametrize(("count", "folded"), [(1, 0), (20, 0), (25, 0), (26, 6), (200, 180)])
def test_classes_beyond_the_first_20_are_folded_and_counted(count: int, folded: int) -> None:
    classes = [f"class {i}" for i in range(count)]
    mix = take_mix([predictions(classes, rows=3 * count)], classes)
    html = render(Report(title="A run", evaluation=None, facts=FACTS, mix=mix))
    open_rows, _, fold = html.partition("<details>")
    text = Elements(html).text
    assert all(name in text for name in classes)
    assert open_rows.count("<tr><td>") == count - folded
    assert fold.count("<tr><td>") == folded
    hidden = sum(sorted(mix.images)[:folded])
    assert (f"and {folded} more classes, with {hidden} images" in fold) == bool(folded)


@pytest.mark.parametrize("labelled", [False, True])
def test_a_scoring_page_shows_the_class_mix_with_and_without_labels(labelled: bool) -> None:
    classes = ["a", "b"]
    table = predictions(classes, rows=4, confidence=pa.array([0.9, 0.8, 0.7, 0.2], pa.float32()))
    evaluation = evaluate([table], classes, {}) if labelled else None
    mix = take_mix([table], classes, min_confidence=0.5)
    html = render(Report(title="Scored", evaluation=evaluation, facts=FACTS, mix=mix))
    text = " ".join(Elements(html).text.split())
    assert "What was predicted" in text
    assert "How sure it is" in text
    assert "1 of 4 is uncertain: its confidence is below 50%" in text
    assert "65.0%" in text  # the mean confidence
    assert ("4 images scored" in text) != labelled
    assert ("Where it goes wrong" in text) == labelled


def test_no_unreadable_file_and_no_duplicate_are_shown_and_other_counts_of_zero_are_not() -> None:
    table = predictions(["a", "b"])
    zeros = {"unreadable": 0, "duplicates": 0, "train": 0, "test": 30}
    shown = counts(evaluate([table], ["a", "b"], zeros), None)
    assert (shown["unreadable"], shown["duplicates"], shown["test"]) == ("0", "0", "30")
    assert "train" not in shown
    assert counts(None, take_mix([table], ["a", "b"]))["unreadable"] == "0"


def test_a_page_is_written_if_no_image_could_be_scored() -> None:
    broken = predictions(["a"], rows=2, predicted=[None] * 2, error=["bomb", "truncated"])
    mix = take_mix([broken], ["a"], min_confidence=0.5)
    html = render(Report(title="Scored", evaluation=None, facts=FACTS, mix=mix))
    text = " ".join(Elements(html).text.split())
    assert "0 images scored" in text
    assert "1 bomb, 1 truncated and 2 more" in text


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_a_page_is_written_for_any_number_of_epochs(epochs: int) -> None:
    html = page(["a", "b"], history=history(epochs))
    assert ("<h2>Learning</h2>" in html) == (epochs > 0)


def test_a_page_is_written_without_validation_results() -> None:
    unmeasured = history(3).assign(val_loss=np.nan, val_accuracy=np.nan)
    assert "<h2>Learning</h2>" in page(["a"], history=unmeasured)


def test_a_page_is_written_for_images_without_labels() -> None:
    html = render(Report(title="A run", evaluation=None, facts=FACTS, unreadable=[("x", "bomb")]))
    text = Elements(html).text
    assert "No image has both a prediction and a label" in text
    assert "bomb" in text


def test_hostile_names_are_shown_as_text_and_never_executed() -> None:
    benign = page(
        list("abcdef"),
        mix=take_mix([predictions(list("abcdef"), error=["why"] + [None] * 299)], list("abcdef")),
        history=history(2),
        unreadable=[(name, "why") for name in "abcdef"],
        warnings=list("abcdef"),
    )
    evaluation = evaluate([predictions(HOSTILE)], HOSTILE, IMAGES)
    html = render(
        Report(
            title=HOSTILE[0],
            evaluation=evaluation,
            facts=dict(zip(FACTS, HOSTILE, strict=False)),
            mix=take_mix([predictions(HOSTILE, error=HOSTILE[:1] + [None] * 299)], HOSTILE),
            history=history(2),
            unreadable=[(name, "why") for name in HOSTILE],
            warnings=HOSTILE,
        )
    )
    seen, expected = Elements(html), Elements(benign)
    assert seen.tags == expected.tags
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert all(name in seen.text for name in HOSTILE)


def test_a_path_that_is_not_utf8_is_still_listed(tmp_path: Path) -> None:
    path = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    write_atomically(tmp_path / "r.html", page(["a"], unreadable=[(path, "truncated")]))
    assert r"caf\udce9.jpg" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_outside() -> None:
    html = page(list("abcdefgh"), history=history(5), mix=MIX)
    elements = Elements(html)
    assert not re.search(r"https?:|//[a-z]|@import", html)
    assert not elements.tags.keys() & {"link", "iframe", "object", "embed", "base"}
    links = [v for name, v in elements.attributes if name.endswith(("href", "src"))]
    assert links
    assert all(link.startswith(("#", "data:image/png")) for link in links)
    policy = "default-src 'none'"
    assert any(name == "content" and policy in value for name, value in elements.attributes)


def test_ids_are_unique_and_references_within_the_page_resolve() -> None:
    html = page([f"{i}" for i in range(30)], history=history(5), mix=MIX)
    attributes = Elements(html).attributes
    ids = Counter(value for name, value in attributes if name == "id")
    references = {value[1:] for name, value in attributes if name == "href" and value[0] == "#"}
    references |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert max(ids.values()) == 1
    assert references <= ids.keys()


def test_the_same_evaluation_gives_the_same_page_byte_for_byte() -> None:
    first, second = (page(list("abcdef"), history=history(4), mix=MIX) for _ in range(2))
    assert first == second


def test_unreadable_files_beyond_the_first_200_are_counted() -> None:
    files = [(f"broken-{i:04d}.jpg", "truncated") for i in range(1234)]
    html = page(["a", "b"], unreadable=files)
    assert len(re.findall(r"broken-\d+", html)) == 200
    assert "1,034 more" in html


def test_a_mix_counts_unreadable_files_that_are_not_listed() -> None:
    reasons = ["truncated"] * 900 + ["not_an_image"] * 334
    mix = take_mix([predictions(["a"], rows=1234, error=reasons)], ["a"])
    files = [(f"broken-{i:04d}.jpg", "truncated") for i in range(200)]
    html = page(["a", "b"], unreadable=files, mix=mix)
    assert len(re.findall(r"broken-\d+", html)) == 200
    assert "1,034 more" in html
    assert "900 truncated, 334 not an image" in Elements(html).text


def test_labels_unknown_to_the_model_are_named_on_the_page() -> None:
    labels = ["a", "b"] + [f"unknown {i:02d}" for i in range(12)]
    evaluation = evaluate([predictions(["a", "b"], rows=14, label=labels)], ["a", "b"], IMAGES)
    html = render(Report(title="A run", evaluation=evaluation, facts=FACTS))
    named = re.findall(r"unknown \d\d", Elements(html).text)
    assert named == [f"unknown {i:02d}" for i in range(10)]
    assert "(1) and others." in Elements(html).text


def test_settings_of_one_command_are_not_listed_as_those_of_the_run() -> None:
    facts = settings_facts(TrainConfig(images="photos", dry_run=False, preview=False))
    assert facts["images"] == "photos" and "epochs" in facts
    assert not {"dry run", "preview"} & facts.keys()


def test_one_image_is_not_counted_as_several() -> None:
    table = predictions(["a", "b"], rows=1)
    evaluation = evaluate([table], ["a", "b"], {})
    assert evaluation.headline.endswith(", 1 image")
    evaluation = evaluation.against(compare([table], [table], ["a", "b"], "other")[0])
    text = Elements(render(Report(title="A run", evaluation=evaluation, facts=FACTS))).text
    assert "Of 1 image, the other run" in text
    assert not re.search(r"\b1 images", text)


def test_an_accuracy_looks_like_1_only_if_no_answer_is_wrong() -> None:
    right = ["a"] * 2999
    table = predictions(["a", "b"], rows=3000, label=[*right, "b"], predicted=[*right, "a"])
    evaluation = evaluate([table], ["a", "b"], {})
    html = render(Report(title="A run", evaluation=evaluation, facts=FACTS))
    assert evaluation.headline.startswith("accuracy 0.9997 (95% interval 0.998 to 0.9999)")
    assert '<p class="large">99.97<small>' in html
    perfect = evaluate([table.slice(0, 2999)], ["a", "b"], {})
    assert perfect.headline.startswith("accuracy 1.000 (")


def test_a_share_of_a_class_looks_like_all_or_none_only_if_it_is() -> None:
    """In the cells of the matrix, in what the script tells of them, and in a change of recall."""
    label = ["a"] * 2500 + ["b"] * 9
    table, other = (
        predictions(["a", "b"], 2509, label=label, predicted=[*found, *label[2:]])
        for found in (["b", "b"], ["b", "a"])
    )
    evaluation = evaluate([table], ["a", "b"], {})
    drawing = confusion_heatmap(evaluation, views(evaluation)[0])
    assert re.findall(r"<text[^>]*>(\d+)</text>", drawing) == ["99", "100"]
    evaluation = evaluation.against(compare([table], [other], ["a", "b"], "other")[0])
    sure = Shown(path="x", label="a", predicted="a", confidence=0.9996)
    html = render(
        Report(
            title="A run",
            evaluation=evaluation,
            facts=FACTS,
            album=Album({}, {(0, 0): [sure]}),
            thumbnails={"x": "data:image/png;base64,"},
        )
    )
    (text,) = re.findall(r'"confusion-data">(.*?)</script>', html, re.DOTALL)
    data = json.loads(text)
    assert data["counts"] == [[0, 0, 2498, "99.9%"], [0, 1, 2, "0.1%"], [1, 1, 9, "100%"]]
    assert [confidence for _, confidence, _ in data["examples"]["0,0"]] == ["99.96%"]
    assert re.findall(r"[▲▼=] [\d.]+(?=</td>)", html) == ["▼ 0.04", "= 0.0"]


def test_a_class_without_images_has_no_scores_and_is_not_the_worst() -> None:
    classes = [f"class {i}" for i in range(9)]
    # Class 0 has no images; class 1 has some, and is never predicted.
    label = ["class 1", *classes[1:]] * 20
    table = predictions(
        classes, rows=180, label=label, predicted=["class 2", *classes[2:], "class 3"] * 20
    )
    evaluation = evaluate([table], classes, {})
    empty, unseen, *_ = class_rows(evaluation)
    assert (empty.precision, empty.recall, empty.f1) == (None, None, None)
    assert (unseen.precision, unseen.recall, unseen.f1) == (None, 0.0, 0.0)
    assert by_trouble(evaluation)[0] == 1 and by_trouble(evaluation)[-1] == 0
    html = render(Report(title="A run", evaluation=evaluation, facts=FACTS))
    scores = re.findall(r"<td><bdi>class [01]</bdi></td>.*?</tr>", html)
    assert [re.findall(r'data-value="([^"]*)">', row) for row in scores] == [
        ["", "", "", "0"],
        ["", "0.0", "0.0", "40"],
    ]
    assert [Elements(row).text for row in scores] == [
        f"class 0{3 * NONE}0",
        f"class 1{NONE}0.0%0.0%40",
    ]
    assert f"class 1recall\xa00%, precision\xa0{NONE}" in Elements(html).text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_numbers_of_a_matrix_can_be_read_in_cells_of_every_colour(scheme: str) -> None:
    """A contrast of 4.5 to 1 (WCAG AA): of ink on the ramp, which is laid over the paper."""
    light, dark = (
        [np.array([int(found[i : i + 2], 16) for i in (0, 2, 4)]) / 255 for found in pair]
        for pair in re.findall(r"--paper: #(\w{6}); --ink: #(\w{6})", STYLE.read_text())
    )
    paper, ink = light if scheme == "light" else dark

    def luminance(colour: NDArray[np.floating]) -> float:
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for red, green, blue, alpha in RAMP(np.linspace(0, 1, 50)):
        cell = alpha * np.array([red, green, blue]) + (1 - alpha) * paper
        low, high = sorted((luminance(cell), luminance(ink)))
        assert (high + 0.05) / (low + 0.05) > 4.5
