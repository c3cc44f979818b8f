"""Laws of the album: bounded, true to its titles, the same however predictions are divided."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn.dataset.pixels import Decode, with_images
from cnn.errors import UserError
from cnn.report.album import CELL_IMAGES, GALLERY, SAMPLE, cell_sizes, take_album
from cnn.report.comparison import compare, lost
from cnn.report.confusion import by_similarity, views
from cnn.report.evaluation import evaluate
from cnn.report.sections import galleries
from cnn.report.suspicion import suspects, usual_confidence
from cnn.report.thumbnail import SIDE, thumbnails
from cnn.scoring.worklist import Root, list_images
from tests.test_report import predictions

CLASSES = [f"class {i}" for i in range(12)]
TABLE = predictions(CLASSES, rows=400)
EVALUATION = evaluate([TABLE], CLASSES, {})


def cut(table: pa.Table, cuts: list[int]) -> list[pa.Table]:
    edges = [0, *sorted(cuts), table.num_rows]
    return [table.slice(low, high - low) for low, high in pairwise(edges)]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=4))
def test_an_album_is_the_same_however_predictions_are_divided(cuts: list[int]) -> None:
    whole = take_album([TABLE], CLASSES, EVALUATION)
    assert take_album(cut(TABLE, cuts), CLASSES, EVALUATION) == whole
    assert take_album(reversed(cut(TABLE, cuts)), CLASSES, EVALUATION) == whole


def test_galleries_hold_what_their_names_say() -> None:
    galleries = take_album([TABLE], CLASSES, EVALUATION).galleries
    wrong = [*galleries["suspects"], *galleries["mistakes"]]
    assert wrong and galleries["right"]
    assert all(image.label != image.predicted for image in wrong)
    assert len({image.path for image in wrong}) == len(wrong)
    assert all(image.label == image.predicted for image in galleries["right"])
    least = sorted(TABLE["confidence"].to_pylist())[:SAMPLE]
    assert [image.confidence for image in galleries["uncertain"]] == least
    sure = [image.confidence for image in galleries["mistakes"]]
    assert sure == sorted(sure, reverse=True)


def test_no_suspected_label_is_among_the_confident_mistakes() -> None:
    # Of class a, 60 are predicted as b with more confidence than b's own images, and 20 with less.
    label, predicted = ["a"] * 160 + ["b"] * 80, ["a"] * 80 + ["b"] * 160
    sure = [0.9] * 80 + [0.97] * 60 + [0.7] * 20 + [0.9] * 80
    table = predictions(
        ["a", "b"],
        rows=240,
        label=label,
        predicted=predicted,
        confidence=pa.array(sure, pa.float32()),
        top_classes=[[name, "b" if name == "a" else "a"] for name in predicted],
    )
    column = table.column_names.index("top_probabilities")
    table = table.set_column(column, "top_probabilities", [[[one, 1 - one] for one in sure]])
    album = take_album([table], ["a", "b"], evaluate([table], ["a", "b"], {}))
    assert album.suspects == 60
    assert {round(image.confidence, 2) for image in album.galleries["mistakes"]} == {0.7}


def test_a_label_is_suspected_if_another_class_reaches_its_usual_confidence() -> None:
    rows = {
        "label": list("aabbb"),
        "predicted": list("ababb"),
        "confidence": [0.9, 0.8, 0.6, 0.7, 0.7],
    }
    guesses = [["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"], ["b", "a"]]
    confidence = pa.array(rows.pop("confidence"), pa.float32())
    table = predictions(["a", "b"], rows=5, top_classes=guesses, confidence=confidence, **rows)
    probabilities = [[c, 1 - c] for c in confidence.to_pylist()]
    at = table.column_names.index("top_probabilities")
    table = table.set_column(at, "top_probabilities", pa.array(probabilities))
    evaluation = evaluate([table], ["a", "b"], {})
    assert evaluation.own_confidence == pytest.approx([(0.9 + 0.2) / 2, (0.4 + 0.7 + 0.7) / 3])
    album = take_album([table], ["a", "b"], evaluation)
    assert album.suspects == 2  # b at 0.8 against the usual 0.6, a at 0.6 against 0.55
    assert [image.path for image in album.galleries["suspects"]] == ["1.jpg", "2.jpg"]


def test_a_gallery_of_some_suspects_names_the_file_that_lists_all() -> None:
    album = take_album([TABLE], CLASSES, EVALUATION)
    (_, text, images), *others = galleries(album)
    assert album.suspects and album.suspects > len(images) == GALLERY
    assert f"the 18 most suspicious of {album.suspects}; all are in suspects.csv" in text
    assert not any("suspects.csv" in other for _, other, _ in others)
    (_, text, _), *_ = galleries(replace(album, suspects=GALLERY))
    assert "suspects.csv" not in text


def of_guesses(label: str, *guesses: dict[str, float]) -> pa.Table:
    """Predictions with these probabilities by class, the best first, and a label for each."""
    names = [list(one) for one in guesses]
    sure = pa.array([max(one.values()) for one in guesses], pa.float32())
    rows = {"label": list(label), "predicted": [first for first, *_ in names]}
    table = predictions(
        list("abc"), len(names), top_classes=names, confidence=sure, **rows
    ).drop_columns("top_probabilities")
    return table.append_column("top_probabilities", [[list(one.values()) for one in guesses]])


# The usual confidence is 0.8 for a and 0.6 for b, so it is 0.7 for c.
NO_C = of_guesses(
    "aaaabb",
    *[{"a": 1.0, "c": 0.0}] * 3,
    {"c": 0.8, "a": 0.2},
    {"b": 0.9, "c": 0.1},
    {"c": 0.65, "b": 0.3},
)


def test_a_class_without_images_has_the_mean_usual_confidence_of_the_others() -> None:
    evaluation = evaluate([NO_C], list("abc"), {})
    assert usual_confidence(evaluation) == pytest.approx([0.8, 0.6, 0.7])
    album = take_album([NO_C], list("abc"), evaluation)
    assert album.suspects == 1
    assert [image.confidence for image in album.galleries["suspects"]] == [pytest.approx(0.8)]
    assert [image.confidence for image in album.galleries["mistakes"]] == [pytest.approx(0.65)]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=4))
def test_the_suspects_are_those_that_the_album_counts_however_divided(cuts: list[int]) -> None:
    found = pa.concat_tables(suspects(cut(TABLE, cuts), EVALUATION))
    album = take_album([TABLE], CLASSES, EVALUATION)
    assert found.num_rows == album.suspects
    assert found.schema == TABLE.schema
    shown = {image.path for image in album.galleries["suspects"]}
    assert shown and shown <= set(found["path"].to_pylist())
    assert not {image.path for image in album.galleries["mistakes"]} & set(
        found["path"].to_pylist()
    )


@pytest.mark.parametrize("classes", [2, 12, 60])
def test_an_album_is_bounded_and_shows_at_most_the_images_of_each_cell(classes: int) -> None:
    names = [f"{i}" for i in range(classes)]
    table = predictions(names, rows=3000)
    evaluation = evaluate([table], names, {})
    album = take_album(cut(table, [1000, 2000]), names, evaluation)
    matrix = np.asarray(evaluation.confusion_matrix)
    sizes = cell_sizes(matrix)
    assert sizes.sum() <= CELL_IMAGES
    assert (sizes <= matrix).all()
    assert {cell: len(images) for cell, images in album.cells.items()} == {
        tuple(map(int, cell)): sizes[tuple(cell)] for cell in np.argwhere(sizes)
    }
    assert len(album.paths()) <= CELL_IMAGES + 2 * GALLERY + 2 * SAMPLE


def test_any_mistake_is_shown_before_any_hit() -> None:
    for classes, hits in ((18, 3 * 18), (19, CELL_IMAGES - 18 * 19), (20, 0)):
        sizes = cell_sizes(np.ones((classes, classes), np.int64) + np.diag([999] * classes))
        assert sizes.sum() == min(CELL_IMAGES, classes * (classes - 1) + 3 * classes)
        assert sizes.trace() == hits


def test_without_labels_an_album_shows_the_least_confident_images() -> None:
    errors = ["bomb"] * 5 + [None] * 395
    album = take_album([predictions(CLASSES, rows=400, error=errors)], CLASSES, None)
    assert list(album.galleries) == ["uncertain"]
    assert len(album.galleries["uncertain"]) == 2 * SAMPLE
    assert not {f"{i}.jpg" for i in range(5)} & set(album.paths())


def test_thumbnails_are_small_and_a_broken_file_has_none(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (400, 300, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:500])
    (tmp_path / "text.png").write_text("<script>alert(1)</script>")
    rows = list_images([str(tmp_path)], CLASSES).manifest.table
    look = thumbnails(Decode([Root(str(tmp_path), "")], 2 * SIDE, "squash"), rows, 9)
    found = look(["good.png", "broken.png", "text.png", "never listed.png"])
    assert list(found) == ["good.png"]
    assert found["good.png"].startswith("data:image/jpeg;base64,")
    assert len(found["good.png"]) < 20_000
    assert look([]) == {}


def test_thumbnails_are_the_same_however_few_images_are_held_at_once() -> None:
    asked: list[int] = []

    def pixels(rows: pa.Table) -> pa.Table:
        asked.append(rows.num_rows)
        numbers = [int(path.removesuffix(".jpg")) for path in rows["path"].to_pylist()]
        images = [bytes([n]) * (3 * 8 * 8) if n % 5 else None for n in numbers]
        return with_images(rows, images)

    paths = TABLE["path"].to_pylist()[10:110]
    whole = thumbnails(pixels, TABLE, 100)(paths)
    assert asked == [100] and list(whole) == [path for n, path in enumerate(paths) if n % 5]
    for most in (1, 32, 99):
        asked.clear()
        assert thumbnails(pixels, TABLE, most)(paths) == whole
        assert max(asked) == most and sum(asked) == 100


def test_similar_classes_are_adjacent() -> None:
    matrix = 90 * np.eye(8, dtype=np.int64)
    for one, other in ((0, 5), (1, 6), (2, 7), (3, 4)):
        matrix[one, other] = matrix[other, one] = 10
    order = by_similarity(matrix)
    assert {frozenset(pair) for pair in zip(order[::2], order[1::2], strict=True)} == {
        frozenset(pair) for pair in ((0, 5), (1, 6), (2, 7), (3, 4))
    }


@pytest.mark.parametrize(("classes", "keys"), [(3, ["name"]), (20, ["similar", "trouble", "name"])])
def test_every_view_of_the_matrix_has_every_class_once(classes: int, keys: list[str]) -> None:
    names = [f"{i}" for i in range(classes)]
    found = views(evaluate([predictions(names)], names, {}))
    assert [view.key for view in found] == keys
    assert all(sorted(view.order) == list(range(classes)) for view in found)


def test_with_200_classes_only_the_first_view_names_the_most_confused() -> None:
    names = [f"{i}" for i in range(200)]
    first, *others = views(evaluate([predictions(names, rows=2000)], names, {}))
    assert (first.key, first.named) == ("mixed", True)
    assert others and not any(view.named for view in others)


def test_without_confusions_every_view_has_its_classes() -> None:
    names = [f"{i}" for i in range(50)]
    found = views(evaluate([predictions(names, label=names * 6, predicted=names * 6)], names, {}))
    assert found and all(len(view.order) == 50 for view in found)


def before() -> pa.Table:
    """Another model's predictions for TABLE's images."""
    return predictions(CLASSES, rows=400, seed=5, label=TABLE["label"])


def test_a_comparison_counts_every_image_once_however_it_is_divided() -> None:
    comparison, galleries = compare(cut(TABLE, [7, 300]), cut(before(), [150]), CLASSES, "other")
    label, now, was = (
        t.to_pylist() for t in (TABLE["label"], TABLE["predicted"], before()["predicted"])
    )
    pairs = [(w == y, n == y) for y, n, w in zip(label, now, was, strict=True)]
    counts = comparison.both_right, comparison.both_wrong, comparison.gained, comparison.lost
    assert counts == tuple(
        map(pairs.count, [(True, True), (False, False), (False, True), (True, False)])
    )
    assert comparison.judged == 400
    assert sum(row.now for row in comparison.per_class) == sum(n for _, n in pairs)
    assert galleries["lost"] and galleries["gained"]
    assert all(i.before == i.label != i.predicted for i in galleries["lost"])
    assert all(i.before != i.label == i.predicted for i in galleries["gained"])
    assert sum(map(len, lost([TABLE], [before()], CLASSES, "other"))) == comparison.lost


def test_a_run_compared_with_itself_shows_no_change() -> None:
    comparison, galleries = compare([TABLE], [TABLE], CLASSES, "itself")
    assert (comparison.gained, comparison.lost, comparison.p_value) == (0, 0, 1.0)
    assert galleries == {"lost": [], "gained": []}


def test_a_class_in_another_unicode_form_is_the_same_class() -> None:
    usual, marks = (normalize(form, "café") for form in ("NFC", "NFD"))
    table, other = (predictions([name, "b"]) for name in (usual, marks))
    comparison, galleries = compare([table], [other], [usual, "b"], "of a Mac")
    assert (comparison.gained, comparison.lost, comparison.both_right > 0) == (0, 0, True)
    assert galleries == {"lost": [], "gained": []}
    assert [part.num_rows for part in lost([table], [other], [usual, "b"], "of a Mac")] == [0]


@pytest.mark.parametrize(
    "others", [[], [TABLE.slice(1)], [TABLE, TABLE.slice(0, 1)], [TABLE.slice(0, 9)]]
)
def test_a_comparison_with_a_run_over_other_images_is_refused(others: list[pa.Table]) -> None:
    with pytest.raises(UserError, match="other images"):
        compare([TABLE], others, CLASSES, "other")
