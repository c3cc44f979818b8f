"""What is not judged is counted, what is shown is escaped, and the page needs nothing else."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cnn.report import Evaluation, evaluate, write_report

IMAGES = {"train": 80, "validation": 10, "test": 30, "unreadable": 1, "duplicates": 0}
FACTS = {"command": "python -m jobs.train photos --out run", "seed": "1"}
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
    """Guesses at random, right more often than not, with the columns of predictions.parquet."""
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
        "top_probabilities": [[1 / len(row)] * len(row) for row in guesses],
        "error": pa.nulls(rows, pa.string()),
    }
    return pa.table(known | columns)


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


def page(path: Path, classes: list[str], **more: Any) -> str:
    evaluation = evaluate(predictions(classes), classes, IMAGES)
    write_report(path, title="A run", evaluation=evaluation, facts=FACTS, **more)
    return path.read_text(encoding="utf-8")


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


def test_every_row_is_either_judged_or_counted_with_its_reason() -> None:
    table = predictions(
        ["cat", "dog"],
        rows=6,
        label=["cat", "dog", None, "wolf", "cat", "dog"],
        predicted=["cat", "cat", "cat", "cat", None, None],
        error=[None, None, None, None, None, "truncated"],
    )
    images = evaluate(table, ["cat", "dog"], IMAGES).images
    reasons = {"no_label": 1, "unknown_class": 1, "no_prediction": 1, "truncated": 1}
    assert images == IMAGES | {"judged": 2, "unjudged": reasons}
    assert images["judged"] + sum(images["unjudged"].values()) == table.num_rows


def test_judged_rows_are_those_of_the_confusion_matrix() -> None:
    classes = ["a", "b", "c"]
    table = predictions(classes)
    evaluation = evaluate(table, classes, IMAGES)
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
    one, other = (evaluate(rows, classes, IMAGES).model_dump() for rows in (table, shuffled))
    # A sum of floats may differ in its last digits; all else may not.
    for result in (one, other):
        result["calibration_error"] = pytest.approx(result["calibration_error"])
        result["calibration_counts"] = np.round(result["calibration_counts"], 6).tolist()
    assert one == other


def test_confused_pairs_are_mistakes_only_the_most_frequent_first() -> None:
    table = predictions(
        ["a", "b"], rows=10, label=["a"] * 6 + ["b"] * 4, predicted=list("aabbbbbbba")
    )
    pairs = evaluate(table, ["a", "b"], IMAGES).confused_pairs
    found = [(pair.true, pair.predicted, pair.count, pair.share) for pair in pairs]
    assert found == [("a", "b", 4, 4 / 6), ("b", "a", 1, 1 / 4)]


def test_top5_accuracy_asks_whether_the_class_is_among_the_first_five_guesses() -> None:
    classes = list("abcdefg")
    guesses = [list("abcdefg"), list("bcdefag"), list("bcdeafg")]
    table = predictions(classes, rows=3, label=["a"] * 3, top_classes=guesses)
    assert evaluate(table, classes, IMAGES).top5_accuracy == 2 / 3


def test_top5_accuracy_is_null_where_it_cannot_be_known() -> None:
    table = predictions(list("abcdefg"), rows=2, top_classes=[list("abc"), list("abcde")])
    assert evaluate(table, list("abcdefg"), IMAGES).top5_accuracy is None
    assert evaluate(predictions(["only"]), ["only"], IMAGES).top5_accuracy is None


@pytest.mark.parametrize("rows", [0, 3])
def test_nothing_to_judge_is_refused_in_one_line(rows: int) -> None:
    table = predictions(["a", "b"], rows=rows, label=pa.nulls(rows))
    with pytest.raises(ValueError, match=r"no image can be judged: (3 no_label|there are no)"):
        evaluate(table, ["a", "b"], IMAGES)


def test_a_predicted_class_from_another_model_is_refused() -> None:
    table = predictions(["a", "b"], rows=2, predicted=["a", "zebra"])
    with pytest.raises(ValueError, match="zebra"):
        evaluate(table, ["a", "b"], IMAGES)


def test_an_evaluation_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    evaluation = evaluate(predictions(HOSTILE), HOSTILE, IMAGES)
    evaluation.write(tmp_path / "evaluation.json")
    assert Evaluation.read(tmp_path / "evaluation.json") == evaluation
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_evaluation_json_speaks_of_class_as_the_contract_does(tmp_path: Path) -> None:
    evaluate(predictions(["a", "b"]), ["a", "b"], IMAGES).write(tmp_path / "evaluation.json")
    columns = set(pd.read_json(tmp_path / "evaluation.json", typ="series")["per_class"][0])
    assert columns == {"class", "precision", "recall", "f1", "support"}


@pytest.mark.parametrize("count", [1, 2, 20, 200])
def test_a_page_is_written_for_any_number_of_classes(tmp_path: Path, count: int) -> None:
    classes = [f"class {i}" for i in range(count)]
    html = page(tmp_path / "report.html", classes, history=history(5))
    text = Elements(html).text
    assert all(name in text for name in classes)
    assert len(html) < 1_000_000


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_a_page_is_written_for_any_number_of_epochs(tmp_path: Path, epochs: int) -> None:
    html = page(tmp_path / "report.html", ["a", "b"], history=history(epochs))
    assert ("<h2>Learning</h2>" in html) == (epochs > 0)


def test_a_page_is_written_where_validation_was_never_measured(tmp_path: Path) -> None:
    unmeasured = history(3).assign(val_loss=np.nan, val_accuracy=np.nan)
    assert "<h2>Learning</h2>" in page(tmp_path / "report.html", ["a"], history=unmeasured)


def test_a_page_is_written_for_images_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, title="A run", evaluation=None, facts=FACTS, unreadable=[("x", "bomb")])
    text = Elements(path.read_text()).text
    assert "no labels" in text
    assert "bomb" in text


def test_hostile_names_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    benign = page(
        tmp_path / "benign.html",
        list("abcdef"),
        history=history(2),
        unreadable=[(name, "why") for name in "abcdef"],
        warnings=list("abcdef"),
    )
    evaluation = evaluate(predictions(HOSTILE), HOSTILE, IMAGES)
    write_report(
        tmp_path / "hostile.html",
        title=HOSTILE[0],
        evaluation=evaluation,
        facts=dict(zip(FACTS, HOSTILE, strict=False)),
        history=history(2),
        unreadable=[(name, "why") for name in HOSTILE],
        warnings=HOSTILE,
    )
    html = (tmp_path / "hostile.html").read_text(encoding="utf-8")
    seen, expected = Elements(html), Elements(benign)
    assert seen.tags == expected.tags
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert all(name in seen.text for name in HOSTILE)


def test_a_path_that_is_not_utf8_is_still_listed(tmp_path: Path) -> None:
    path = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert r"caf\udce9.jpg" in page(tmp_path / "r.html", ["a"], unreadable=[(path, "truncated")])


def test_the_page_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    html = page(tmp_path / "report.html", list("abcdefgh"), history=history(5))
    elements = Elements(html)
    assert not re.search(r"https?:|//[a-z]|@import", html)
    assert not elements.tags.keys() & {"script", "link", "iframe", "object", "embed", "base"}
    links = [v for name, v in elements.attributes if name.endswith(("href", "src"))]
    assert links
    assert all(link.startswith(("#", "data:image/png")) for link in links)
    policy = "default-src 'none'"
    assert any(name == "content" and policy in value for name, value in elements.attributes)


def test_ids_are_unique_and_references_within_the_page_resolve(tmp_path: Path) -> None:
    html = page(tmp_path / "report.html", [f"{i}" for i in range(30)], history=history(5))
    attributes = Elements(html).attributes
    ids = Counter(value for name, value in attributes if name == "id")
    references = {value[1:] for name, value in attributes if name == "href" and value[0] == "#"}
    references |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert max(ids.values()) == 1
    assert references <= ids.keys()


def test_the_same_evaluation_gives_the_same_page_byte_by_byte(tmp_path: Path) -> None:
    first, second = (
        page(tmp_path / name, list("abcdef"), history=history(4)) for name in ("1.html", "2.html")
    )
    assert first == second


def test_unreadable_files_beyond_the_first_200_are_counted(tmp_path: Path) -> None:
    files = [(f"broken-{i:04d}.jpg", "truncated") for i in range(1234)]
    html = page(tmp_path / "report.html", ["a", "b"], unreadable=files)
    assert len(re.findall(r"broken-\d+", html)) == 200
    assert "1,034 more" in html
