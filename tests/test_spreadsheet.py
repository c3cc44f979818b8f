"""Laws of the CSV: every row and text can be read back, and no cell is a formula."""

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from faults import full_disk
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.scoring.prediction import SCHEMA
from cnn.scoring.spreadsheet import COLUMNS, write_csv

SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"

ODD_NAMES = ["line\nbreak\r\t.jpg", "a,b;c.jpg", '"quo\'ted".jpg', "🐈\u200d⬛.jpg", "é\\xff.jpg"]


def rows(*given: dict[str, Any]) -> pa.Table:
    """A table of predictions with these values, and null for the others."""
    return pa.Table.from_pylist(
        [dict.fromkeys(SCHEMA.names) | values for values in given], schema=SCHEMA
    )


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, strict=True))


def written(folder: Path, *parts: pa.Table) -> list[dict[str, str]]:
    write_csv(folder / "predictions.csv", parts)
    return read(folder / "predictions.csv")


def path_cell(folder: Path, text: str) -> str:
    (row,) = written(folder, rows({"path": text}))
    return row["path"]


def test_a_row_has_the_three_best_classes_with_four_decimals(tmp_path: Path) -> None:
    (row,) = written(
        tmp_path,
        rows(
            {
                "path": "a/x.jpg",
                "label": "dog",
                "predicted": "cat",
                "confidence": 0.87654,
                "top_classes": ["cat", "dog", "cow", "hen"],
                "top_probabilities": [0.87654, 0.1, 0.00002, 0.0],
            }
        ),
    )
    assert row == {
        "path": "a/x.jpg",
        "label": "dog",
        "predicted": "cat",
        "confidence": "0.8765",
        "second": "dog",
        "second_confidence": "0.1000",
        "third": "cow",
        "third_confidence": "0.0000",
        "error": "",
    }


def test_unknown_values_are_empty_cells(tmp_path: Path) -> None:
    two = {"top_classes": ["cat", "dog"], "top_probabilities": [1.0, 0.0]}
    unreadable, only_two = written(tmp_path, rows({"path": "x", "error": "truncated"}, two))
    assert {name for name, cell in unreadable.items() if cell} == {"path", "error"}
    assert (only_two["second"], only_two["third"], only_two["third_confidence"]) == ("dog", "", "")


def test_parts_follow_one_another_under_one_header(tmp_path: Path) -> None:
    parts = [rows({"path": "a"}, {"path": "b"}), rows(), rows({"path": "c"}).slice(0, 1)]
    assert [row["path"] for row in written(tmp_path, *parts)] == ["a", "b", "c"]


def test_a_file_without_rows_has_a_header(tmp_path: Path) -> None:
    assert written(tmp_path) == []
    header, *nothing = (tmp_path / "predictions.csv").read_text("utf-8").splitlines()
    assert header.replace('"', "").split(",") == COLUMNS.names
    assert nothing == []


@pytest.mark.parametrize("name", ODD_NAMES)
def test_text_with_odd_characters_is_read_back_unchanged(tmp_path: Path, name: str) -> None:
    assert path_cell(tmp_path, name) == name
    assert (tmp_path / "predictions.csv").read_bytes().endswith(b"\n")


@settings(deadline=None, max_examples=20)
@given(st.lists(st.text(st.characters(exclude_characters=SIGNS, codec="utf-8")).map("x".__add__)))
def test_text_without_a_formula_is_read_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    table = rows(*({"path": text} for text in texts))
    assert [row["path"] for row in written(tmp_path_factory.getbasetemp(), table)] == texts


@pytest.mark.parametrize("before", ["", " ", "\t", "\r", "\n", "\ufeff", "\u00a0", "\u200b \v"])
def test_a_cell_that_starts_like_a_formula_is_text(tmp_path: Path, before: str) -> None:
    formulas = [f"{before}{sign}cmd|'/c calc'!A0" for sign in SIGNS]
    found = written(tmp_path, rows(*({"path": text} for text in formulas)))
    assert len(found) == len(formulas)
    for row in found:
        assert row["path"].startswith(f"'{before}")


@pytest.mark.parametrize("start", ["\t", "\r", "\n"])
def test_a_cell_that_starts_with_a_tab_or_a_line_end_is_text(tmp_path: Path, start: str) -> None:
    assert path_cell(tmp_path, f"{start}x") == f"'{start}x"


@pytest.mark.parametrize("separator", [";", "\t", "\n", "\r\n"])
def test_a_formula_after_another_separator_is_text_too(tmp_path: Path, separator: str) -> None:
    assert path_cell(tmp_path, f"x{separator} =1+1") == f"x{separator} '=1+1"


def test_a_formula_in_quotes_after_another_separator_is_text_too(tmp_path: Path) -> None:
    written(tmp_path, rows({"path": "a.jpg", "label": 'x;"=1+1'}))  # not first in its line
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file, delimiter=";") for cell in row]
    assert any("=1+1" in cell for cell in cells)
    assert not any(cell.startswith("=") for cell in cells)


def test_no_text_column_holds_a_formula(tmp_path: Path) -> None:
    formula, texts = "=1+1", ("path", "label", "predicted", "error")
    lists = {"top_classes": [formula] * 3, "top_probabilities": [0.5, 0.25, 0.25]}
    (row,) = written(tmp_path, rows(dict.fromkeys(texts, formula) | lists))
    assert [name for name, cell in row.items() if cell == "'=1+1"] == [
        *("path", "label", "predicted", "second", "third", "error")
    ]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "predictions.csv"
    file.write_text("old")
    with full_disk(10_000), pytest.raises(OSError):
        write_csv(file, [rows({"path": "x" * 100}).slice(0, 1)] * 1000)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_part_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_csv(tmp_path / "predictions.csv", [rows({"path": "x"}), pa.table({"other": [1]})])
    assert list(tmp_path.iterdir()) == []
