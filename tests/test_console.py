"""Laws of the console: results to standard output, remarks to standard error, text unchanged."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from select import select

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.loop import Epoch
from cnn.text.console import TABLE_HEAD, Console, Milestones, clock, epoch_line, pace, starved

LITERAL = [
    "[bold]cat[/bold]",
    "[red]",
    "[/]",
    "\\[cat]",
    ":cat:",
    "100 %s {} {name}",
    "https://example.org/1.jpg",
    "  two  spaces  ",
    "a" * 300,
    "caf\u00e9 \u732b",
]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that make rich assume a terminal."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


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


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.6, "1:00:00"),
        (3600, "1:00:00"),
        (36_061, "10:01:01"),
    ],
)
def test_a_duration_is_shown_in_hours_minutes_and_seconds(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_a_shown_duration_loses_no_second(seconds: int) -> None:
    total = 0
    for part in clock(seconds).split(":"):
        total = total * 60 + int(part)
    assert total == seconds


@pytest.mark.parametrize("text", LITERAL)
def test_remarks_go_to_stderr_unchanged(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Console().say(text)
    assert capsys.readouterr() == ("", f"{text}\n")


@pytest.mark.parametrize("text", LITERAL)
def test_results_go_to_stdout_unchanged(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Console().result(text)
    assert capsys.readouterr() == (f"{text}\n", "")


@pytest.mark.parametrize(
    ("redirected", "shown"), [("", b"wrote \\xe9\\u732b\n"), (">&-", b"")], ids=["ascii", "closed"]
)
def test_a_result_is_escaped_for_an_ascii_output_and_dropped_for_a_closed_one(
    redirected: str, shown: bytes
) -> None:
    program = "from cnn.text.console import Console; Console().result('wrote \\u00e9\\u732b')"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "{program}" {redirected}', sys.executable],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, b"")


def test_a_log_gets_lines_and_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with console.bar("decode") as advance:
        advance(1, 7)
        console.say("half-way")
        advance(7, 7)
    assert capsys.readouterr() == ("", "half-way\n")


@contextmanager
def terminal() -> Iterator[int]:
    """A terminal as standard error; yields the user's end."""
    user, device = pty.openpty()
    with Path(os.ttyname(device)).open("w") as stderr, redirect_stderr(stderr):
        yield user
    os.close(device)
    os.close(user)


def seen(user: int) -> str:
    """Everything that has arrived at the user's end."""
    pieces = []
    while select([user], [], [], 0.1)[0]:
        pieces.append(os.read(user, 10_000))
    return b"".join(pieces).decode()


def test_a_terminal_gets_a_bar_and_unchanged_remarks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with terminal() as user:
        console = Console()
        with console.bar("decode") as advance:
            advance(3, 7)
            console.say("[red] :cat: 12")
        text = seen(user)
    assert "decode" in text and "3/7" in text
    assert "[red] :cat: 12\r\n" in text
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_progress_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    milestones = Milestones(Console(), "score", "images", seconds=0)
    for done in (100, 300):
        milestones(done, 1000)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("score    300 of 1,000, ") and "images/s, left " in line


@pytest.mark.parametrize(
    ("speed", "text"), [(1234.5, "1,234 images/s"), (1, "1 images/s"), (0.5, "30.0 images/min")]
)
def test_a_pace_below_one_a_second_is_shown_per_minute(speed: float, text: str) -> None:
    assert pace(speed, "images") == text


def test_control_characters_in_a_name_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b]0;owned\x07\x1b[2Jcat\r\n\u202e"
    console = Console()
    console.say(name)
    console.result(name)
    shown = "\\x1b]0;owned\\x07\\x1b[2Jcat\\r\\n\\u202e\n"
    assert capsys.readouterr() == (shown, shown)


def test_a_reader_that_closes_the_pipe_does_not_fail_the_job() -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` does once it has enough lines
    program = "from cnn.text.console import Console; Console().result('x'); Console().result('y')"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("forced", ["", "1"], ids=["lines", "bars"])
def test_a_reader_that_closes_the_pipe_of_the_remarks_does_not_fail_the_job(forced: str) -> None:
    program = """
from cnn.text.console import Console
console = Console()
console.say("x")
with console.bar("decode", "images") as advance:
    advance(1, 7)
    console.say("y")
console.result("done")
"""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "FORCE_COLOR": forced, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stdout) == (0, "done\n")
