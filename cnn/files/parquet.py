"""A Parquet file in any place: written whole or not at all, read by columns."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cnn.files.atomic import write_atomically
from cnn.files.place import Place


def write(file: Place, table: pa.Table, **options: Any) -> None:
    """Write `table`; options are those of `pyarrow.parquet.write_table`."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, **options)
    write_atomically(file, buffer.getvalue())


def read(file: Place, columns: list[str] | None = None) -> pa.Table:
    """Read all columns, or some; a parent folder named `a=b` is not read as a partition.

    A file on a disk is mapped into memory, so that plain pages are not copied.
    """
    if isinstance(file, Path):
        return pq.read_table(file, columns=columns, partitioning=None, memory_map=True)
    with file.open() as stream:
        return pq.read_table(stream, columns=columns)


def take(file: Place, column: str, rows: np.ndarray) -> pa.Array:
    """The values of one column at these row numbers, in their order.

    Reads only the row groups that hold any of them. Raises pa.ArrowIndexError if a row is missing.
    """
    source = pa.memory_map(str(file)) if isinstance(file, Path) else file.open()
    with source, pq.ParquetFile(source) as parquet:
        groups = range(parquet.num_row_groups)
        sizes = np.array([parquet.metadata.row_group(group).num_rows for group in groups], np.int64)
        group = np.searchsorted(sizes.cumsum(), rows, side="right")
        wanted = np.intersect1d(group, groups)
        values = parquet.read_row_groups(wanted.tolist(), [column])[column]
    skipped = np.where(np.isin(groups, wanted), 0, sizes).cumsum()
    before = np.append(skipped, skipped[-1:])[group]
    return values.take(pa.array(rows - before)).combine_chunks()
