"""The token of a local Ray: anyone who has it can run code as this user."""

import os
import secrets
import stat
from pathlib import Path

from cnn.errors import UserError, writing_to

MEND = "set HOME to a folder that can be written, or RAY_AUTH_TOKEN_PATH to a file with a token"
ELSEWHERE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def keep_token_private() -> None:
    """Make Ray's token file readable by its owner only; create it if it is missing.

    Ray 2.60 would create it itself, readable by everyone on the machine. Source:
    `ray._private.authentication`. A token that the environment names is left alone.
    """
    if any(name in os.environ for name in ELSEWHERE):
        return
    file = Path.home() / ".ray" / "auth_token"
    with writing_to(file, MEND):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            keep_private(file)
            return
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))


def keep_private(file: Path) -> None:
    """Make an existing token readable by its owner only; UserError if it is not even a file."""
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{file} is no file, as Ray's token must be: remove it, or {MEND}")
    if found.st_uid == os.getuid() and found.st_mode & 0o077:
        file.chmod(0o600)
