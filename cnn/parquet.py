"""A Parquet file in any place: written whole or not at all, read by columns."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cnn.atomic import write_atomically
from cnn.place import Place


def write(file: Place, table: pa.Table, **options: Any) -> None:
    """Write `table`; options are those of `pyarrow.parquet.write_table`."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, **options)
    write_atomically(file, buffer.getvalue())


def read(file: Place, columns: list[str] | None = None) -> pa.Table:
    """Read all columns, or some; a folder called `a=b` above the file means nothing.

    A file on a disk is mapped into memory, so that plain pages are not copied.
    """
    if isinstance(file, Path):
        return pq.read_table(file, columns=columns, partitioning=None, memory_map=True)
    with file.open() as stream:
        return pq.read_table(stream, columns=columns)
