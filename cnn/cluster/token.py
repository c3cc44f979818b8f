"""The token that a Ray of our own asks for: whoever has it can run code as us."""

import os
import secrets
from pathlib import Path

ELSEWHERE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def keep_token_private() -> None:
    """See that Ray's token file can be read by its owner alone.

    Ray 2.60 makes the file itself where there is none, and lets everybody on the machine read it.
    Source: `ray._private.authentication`. A token that the environment names is not ours.
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
