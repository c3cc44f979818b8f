"""Laws of the console: results to standard output, remarks to standard error, text unchanged."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from select import select

import pytest

from cnn.text.console import Console, Milestones, pace

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


def test_the_rate_of_a_resumed_run_is_that_of_this_session(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    milestones = Milestones(Console(), "score", "images", seconds=5)
    milestones(600, 1000)  # by an earlier session
    now = 10.0
    milestones(700, 1000)
    assert capsys.readouterr().err == "score    700 of 1,000, 10 images/s, left 0:30\n"


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
