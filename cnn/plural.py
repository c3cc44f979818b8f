"""Counts in words: 1 image, 2 images."""


def counted(number: int, noun: str, several: str | None = None) -> str:
    """So many of what the noun names; `several` where its plural takes more than an s."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"
