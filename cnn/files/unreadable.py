"""Why a file has no pixels: a reason, and the exception that carries it."""

from typing import Final, Literal

BYTE_LIMIT: Final = 512 * 2**20
"""Most bytes a file may have. Readers check this before reading."""

Reason = Literal[
    "truncated",  # a known container, cut short or damaged (or a variant Pillow cannot read)
    "not_an_image",
    "empty_file",
    "bomb",  # declares more than PIXEL_LIMIT pixels
    "unsupported_format",  # a known container that is not decoded: HEIC, PSD, JPEG 2000, PDF ...
    "vanished",
    "permission_denied",
    "broken_symlink",
    "outside_root",
    "not_a_regular_file",
    "too_large",  # more than BYTE_LIMIT bytes, or than memory holds
    "decoder_crashed",
]
"""Why a file has no pixels. The decoder gives the first five and `too_large`, readers the rest."""


class Unreadable(Exception):
    """A file has no pixels, for one `reason`. Survives pickling, so it can cross processes."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
