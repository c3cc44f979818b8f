"""Laws of predictions: a row per image in order, the likeliest classes first and by name."""

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.scoring.prediction import SCHEMA, predictions, uncertain


def rows(*paths: str, **columns: list[str | None]) -> pa.Table:
    """Manifest rows; without labels or errors unless given."""
    nothing: list[str | None] = [None] * len(paths)
    values = {"path": list(paths), "label": nothing, "error": nothing, **columns}
    return pa.table({name: pa.array(value, pa.string()) for name, value in values.items()})


def predicted(probabilities: torch.Tensor, names: list[str]) -> pa.Table:
    return predictions(rows(*(f"{n}.jpg" for n in range(len(probabilities)))), probabilities, names)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 6), st.integers(2, 12), st.integers(0, 999))
def test_the_top_classes_are_the_likeliest_ones_with_their_probabilities(
    images: int, classes: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(images, classes, generator=generator).softmax(dim=1)
    names = [f"class {number}" for number in reversed(range(classes))]
    table = predicted(probabilities, names)
    assert table.schema == SCHEMA
    assert table.num_rows == images
    for row, given_row in zip(table.to_pylist(), probabilities.tolist(), strict=True):
        ranked = sorted(zip(given_row, names, strict=True), reverse=True)[:5]
        assert row["top_probabilities"] == [pytest.approx(value) for value, _ in ranked]
        assert row["top_classes"] == [name for _, name in ranked]
        assert row["predicted"] == row["top_classes"][0]
        assert row["confidence"] == row["top_probabilities"][0]
        assert row["error"] is None


@pytest.mark.parametrize(("classes", "named"), [(2, 2), (4, 4), (5, 5), (9, 5)])
def test_the_top_classes_are_five_or_all_if_there_are_fewer(classes: int, named: int) -> None:
    table = predicted(torch.full((1, classes), 1 / classes), list("abcdefghi"[:classes]))
    (names,) = table["top_classes"].to_pylist()
    assert len(names) == len(set(names)) == named


def test_paths_and_labels_keep_their_rows_and_a_missing_label_stays_missing() -> None:
    paths, labels = ["b.jpg", "a/é.png", "a.jpg"], ["dog", None, "cat"]
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    table = predictions(rows(*paths, label=[*labels]), probabilities, ["cat", "dog"])
    assert table["path"].to_pylist() == paths
    assert table["label"].to_pylist() == labels
    assert table["predicted"].to_pylist() == ["cat", "dog", "dog"]


@pytest.mark.parametrize("name", ["NA", "null", "01", "1e3", "True", "", "=1+1"])
def test_class_names_stay_text(name: str) -> None:
    table = predicted(torch.tensor([[0.7, 0.3]]), [name, "other"])
    assert table["predicted"].to_pylist() == [name]
    assert table["top_classes"].to_pylist() == [[name, "other"]]


def test_an_unreadable_image_has_a_row_with_its_reason_and_no_prediction() -> None:
    error = [None, "truncated", None, "vanished"]
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    table = predictions(rows(*"abcd", error=error), probabilities, ["cat", "dog"])
    assert table["path"].to_pylist() == list("abcd")
    assert table["error"].to_pylist() == error
    assert table["predicted"].to_pylist() == ["cat", None, "dog", None]
    for name in ("confidence", "top_classes", "top_probabilities"):
        assert [value is None for value in table[name].to_pylist()] == [False, True, False, True]


def test_a_part_with_only_unreadable_images_still_has_rows() -> None:
    table = predictions(rows("a", error=["truncated"]), torch.empty(0, 2), ["cat", "dog"])
    assert table.schema == SCHEMA and table.to_pylist()[0]["error"] == "truncated"


def test_uncertain_images_are_below_the_limit_and_readable() -> None:
    probabilities = torch.tensor([[0.7, 0.3], [0.6, 0.4]])
    table = predictions(rows(*"abc", error=[None, None, "empty_file"]), probabilities, ["x", "y"])
    assert uncertain(table, 0.7)["path"].to_pylist() == ["b"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_image_whose_probabilities_are_no_numbers_has_no_prediction(value: float) -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, value], [0.4, 0.6]])
    table = predictions(
        rows(*"abcd", error=[None, "truncated", None, None]), probabilities, ["x", "y"]
    )
    assert table["predicted"].to_pylist() == ["x", None, None, "y"]
    for name in ("confidence", "top_classes", "top_probabilities"):
        assert [value is None for value in table[name].to_pylist()] == [False, True, True, False]
    assert uncertain(table, 0.95)["path"].to_pylist() == ["a", "d"]
