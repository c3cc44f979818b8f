"""Text that is safe on a terminal: one line that shows every character and runs no command."""

import re

# Controls (C0 and C1, so also the escape that begins a command), line and paragraph separators,
# marks that change the direction of text, and lone surrogates, which cannot be encoded.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def one_line(text: str) -> str:
    r"""The text with each unsafe character as its escape in Python (``\n``, ``\x1b``, ``\u202e``).

    Names of files and classes are untrusted; raw, they could clear the screen, set the window's
    title, or imitate a line of the job's output.
    """
    return _UNSAFE.sub(lambda unsafe: ascii(unsafe[0])[1:-1], text)
