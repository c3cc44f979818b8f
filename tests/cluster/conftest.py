"""One Ray for all tests of cnn.cluster: starting one takes seconds."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cnn.cluster import environment

if TYPE_CHECKING:
    from cnn.dataset.prepared import Prepared

environment.set_defaults()


@pytest.fixture(scope="session", autouse=True)
def ray_session() -> Iterator[None]:
    from cnn.cluster.session import session

    # Not tmp_path: Ray's sockets are in here, and a socket's path is limited to 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.delenv("RAY_ADDRESS", raising=False)
        with session(6, searching=True):
            yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def dataset(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> "Prepared":
    """The same digits, prepared at 16 pixels."""
    from cnn.cluster import ingest
    from cnn.config import Images
    from cnn.dataset.source import list_source
    from cnn.text.console import Console

    source = list_source(str(digits), Images(image_size=16))
    folder = tmp_path_factory.mktemp("prepared") / "digits"
    return ingest.prepare(source, folder, lambda done, total: None, Console())


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 digits in 10 folders; one file is truncated, another is text named like an image."""
    from cnn.dataset import digits

    folder = digits.write(tmp_path_factory.mktemp("images") / "digits")
    for file in sorted(folder.rglob("*.png")):
        if int(file.stem) >= 300:
            file.unlink()
    first, second = sorted((folder / "3").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:60])
    second.write_text("no image")
    return folder
