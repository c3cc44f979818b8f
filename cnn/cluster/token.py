"""The token of a local Ray: anyone who has it can run code as this user."""

import os
import secrets
from pathlib import Path

ELSEWHERE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def keep_token_private() -> None:
    """Make Ray's token file readable by its owner only; create it if it is missing.

    Ray 2.60 would create it itself, readable by everyone on the machine. Source:
    `ray._private.authentication`. A token that the environment names is left alone.
    """
    if any(name in os.environ for name in ELSEWHERE):
        return
    file = Path.home() / ".ray" / "auth_token"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if file.stat().st_uid == os.getuid():
            file.chmod(0o600)
        return
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_hex(32))
