"""Laws of predictions: a row per image in order, the likeliest classes first and by name."""

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.prediction import SCHEMA, predictions


def column(values: list[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


def predicted(probabilities: torch.Tensor, names: list[str]) -> pa.Table:
    paths: list[str | None] = [f"{number}.jpg" for number in range(len(probabilities))]
    return predictions(column(paths), column([None] * len(paths)), probabilities, names)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 6), st.integers(2, 12), st.integers(0, 999))
def test_the_top_classes_are_the_likeliest_in_order_each_beside_its_probability(
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
def test_as_many_classes_are_named_as_there_are_up_to_five(classes: int, named: int) -> None:
    table = predicted(torch.full((1, classes), 1 / classes), list("abcdefghi"[:classes]))
    (names,) = table["top_classes"].to_pylist()
    assert len(names) == len(set(names)) == named


def test_paths_and_labels_stay_in_their_rows_and_an_unknown_label_stays_unknown() -> None:
    paths, labels = ["b.jpg", "a/é.png", "a.jpg"], ["dog", None, "cat"]
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    table = predictions(column([*paths]), column([*labels]), probabilities, ["cat", "dog"])
    assert table["path"].to_pylist() == paths
    assert table["label"].to_pylist() == labels
    assert table["predicted"].to_pylist() == ["cat", "dog", "dog"]


@pytest.mark.parametrize("name", ["NA", "null", "01", "1e3", "True", "", "=1+1"])
def test_class_names_stay_text(name: str) -> None:
    table = predicted(torch.tensor([[0.7, 0.3]]), [name, "other"])
    assert table["predicted"].to_pylist() == [name]
    assert table["top_classes"].to_pylist() == [[name, "other"]]
