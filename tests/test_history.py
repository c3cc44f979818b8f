"""Laws of a history: rows are kept exactly and shown aligned, and it does not need torch."""

import re
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.training import history
from cnn.training.history import TABLE_HEAD, Epoch, epoch_line, starved


def row(**values: float) -> Epoch:
    known = {"epoch": 3, "train_loss": 1.23456, "train_accuracy": 0.5, "val_loss": 2.0}
    more = {"val_accuracy": 0.25, "lr": 0.001, "seconds": 60.0, "images_per_second": 1234.5}
    return Epoch(**{**known, **more, "side": 64, "data_wait": 0.1, **values})  # type: ignore[typeddict-item]


def ends(line: str) -> list[int]:
    """Where the columns of a table end; at least two spaces separate them."""
    return [match.end() for match in re.finditer(r"\S+(?: \S+)*", line)]


@settings(deadline=None)
@given(
    epochs=st.integers(1, 999),
    loss=st.floats(0, 99_999),
    accuracy=st.floats(0, 1),
    lr=st.floats(0, 10),
    left=st.floats(0, 299_999),
    rate=st.floats(0, 9_999_999),
)
def test_each_number_is_right_aligned_below_its_title(
    epochs: int, loss: float, accuracy: float, lr: float, left: float, rate: float
) -> None:
    numbers = {"train_loss": loss, "val_loss": loss / 100, "lr": lr, "images_per_second": rate}
    shares = {"train_accuracy": accuracy, "val_accuracy": accuracy}
    line = epoch_line(row(epoch=1, **numbers, **shares), epochs, left)
    assert ends(line) == ends(TABLE_HEAD)
    assert len(line) <= 80


def test_an_epoch_line_shows_its_numbers_and_the_time_left() -> None:
    line = epoch_line(row(), epochs=10, left=420.0)
    assert line.split() == [
        "3/10", "1.235", "0.500", "2.000", "0.250", "0.00100", "1234", "7:00",
    ]  # fmt: skip


def test_a_run_that_waits_for_images_gets_a_warning() -> None:
    assert starved([row(data_wait=0.1), row(data_wait=0.3)]) is None
    line = starved([row(data_wait=0.2), row(data_wait=0.6)])
    assert line is not None and "40% of the training" in line and "--memory" in line


def test_a_written_history_is_read_back(tmp_path: Path) -> None:
    rows = [row(epoch=number, val_accuracy=number / 3) for number in (1, 2, 3)]
    history.write(tmp_path / "history.csv", rows)
    assert history.read(tmp_path / "history.csv").to_dict("records") == rows


def test_a_process_that_only_shows_epochs_does_not_load_torch() -> None:
    program = "import cnn.cluster.progress, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
