"""Text for a terminal: one line that shows every character and commands nothing."""

import re

# Controls (C0 and C1, so also the escape that begins a command), line and paragraph separators,
# marks that turn the order of reading around, and halves of characters, which no encoding has.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def one_line(text: str) -> str:
    r"""The text with each unsafe character as its escape in Python (``\n``, ``\x1b``, ``\u202e``).

    Names of files and classes are anybody's; raw, they could clear the screen, set the window's
    title, or forge a line of ours.
    """
    return _UNSAFE.sub(lambda unsafe: ascii(unsafe[0])[1:-1], text)
