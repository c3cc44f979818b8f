r"""Predictions as CSV for people: a spreadsheet reads no cell of it as a formula.

A cell that would start like a formula is written with a ``'`` in front, by which spreadsheets
mark text; a CSV reader returns every other text unchanged. Programs should read the predictions'
Parquet, where nothing is marked.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.csv import CSVWriter

from cnn.files.atomic import writing
from cnn.files.place import Place

_SHARE = pa.decimal128(5, 4)  # 0.0000 to 1.0000

COLUMNS = pa.schema(
    {
        "path": pa.string(),
        "label": pa.string(),
        "predicted": pa.string(),
        "confidence": _SHARE,
        "second": pa.string(),
        "second_confidence": _SHARE,
        "third": pa.string(),
        "third_confidence": _SHARE,
        "error": pa.string(),
    }
)

# A formula starts with one of = + - @ or their full-width twins; a spreadsheet may strip spaces and
# invisible characters before it.
_SIGN = r"[=+\-@\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]"
_FORMULA = rf"^([\pZ\pC]*{_SIGN}|[\t\r\n])"

# In locales with a decimal comma, cells end at semicolons, and a quote that does not open a line
# is an ordinary character: what follows a semicolon, a tab or a line end may be a cell there, and
# may be in quotes.
_INNER_FORMULA = rf"([;\t\r\n][\pZ\pC\"]*)({_SIGN})"


def write_csv(path: Place, parts: Iterable[pa.Table]) -> None:
    r"""Writes tables of `cnn.scoring.prediction.SCHEMA` as one CSV: `COLUMNS`, whole or not at all.

    UTF-8 without a byte order mark, lines end with "\n", every text is quoted, a null is empty. The
    header is written even if there are no tables. Only one part at a time is in memory.
    """
    with (
        writing(path) as temporary,
        temporary.open("wb") as stream,
        CSVWriter(stream, COLUMNS) as csv,
    ):
        for part in parts:
            csv.write_table(_cells(part))


def _cells(part: pa.Table) -> pa.Table:
    """The rows of a part as `COLUMNS`."""
    classes, probabilities = part["top_classes"], part["top_probabilities"]
    columns = (
        _text(part["path"]),
        _text(part["label"]),
        _text(part["predicted"]),
        _share(part["confidence"]),
        _text(_ranked(classes, 2)),
        _share(_ranked(probabilities, 2)),
        _text(_ranked(classes, 3)),
        _share(_ranked(probabilities, 3)),
        _text(part["error"]),
    )
    return pa.table(list(columns), schema=COLUMNS)


def _text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    opened = pc.replace_substring_regex(values, _FORMULA, r"'\1")
    return pc.replace_substring_regex(opened, _INNER_FORMULA, r"\1'\2")


def _share(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Rounded to four decimals."""
    return values.cast(_SHARE)


def _ranked(lists: pa.ChunkedArray, rank: int) -> pa.ChunkedArray:
    """The entry of each list at a rank, from 1; null if the list is shorter, or null."""
    return pc.list_element(pc.list_slice(lists, rank - 1, rank, return_fixed_size_list=True), 0)
