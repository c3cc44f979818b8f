"""Laws of terminal output: one line, from which the text can be recovered, and no command."""

import ast
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.text.terminal import one_line


@given(st.text())
def test_any_text_becomes_one_line_without_control_characters(text: str) -> None:
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    turning = {"LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {unicodedata.bidirectional(character) for character in shown} & turning


@given(st.text(st.characters(exclude_characters="\\'")))
def test_escaped_text_can_be_recovered(text: str) -> None:
    assert ast.literal_eval(f"'{one_line(text)}'") == text


@pytest.mark.parametrize(
    "name, shown",
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31mred", r"\x9b31mred"),
        ("one\r\ntwo\tthree", r"one\r\ntwo\tthree"),
        ("gpj.\u202egepj", r"gpj.\u202egepj"),
        ("caf\u00e9 \u732b \U0001f408\u200d\u2b1b", "caf\u00e9 \u732b \U0001f408\u200d\u2b1b"),
    ],
)
def test_terminal_commands_are_escaped_and_letters_stay(name: str, shown: str) -> None:
    assert one_line(name) == shown
