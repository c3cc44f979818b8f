"""Laws of safe decoding: the same pixels, and a faulty file harms no other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from faults import faulty_decoder

from cnn.dataset import digits
from cnn.dataset.decoding import SubprocessDecoder, decode_in_time
from cnn.files.unreadable import Unreadable
from cnn.image import decode


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give new Python processes a decoder that crashes or hangs on marked files."""
    monkeypatch.setenv("PYTHONPATH", str(faulty_decoder(tmp_path)), prepend=os.pathsep)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = digits.write(tmp_path_factory.mktemp("digits") / "images")
    return [file.read_bytes() for file in sorted(folder.rglob("*.png"))[:20]]


def reason(decoder: SubprocessDecoder, data: bytes) -> str:
    with pytest.raises(Unreadable) as unreadable:
        decoder(data, 16, "squash")
    return unreadable.value.reason


def test_safe_decoding_gives_the_decoders_own_pixels_and_reasons(images: list[bytes]) -> None:
    with SubprocessDecoder() as isolated:
        for data in images:
            plain = decode(data, 16)
            assert np.array_equal(isolated(data, 16, "squash"), plain)
            assert np.array_equal(decode_in_time(data, 16, "squash"), plain)
        assert reason(isolated, images[0][:60]) == "truncated"
        assert reason(isolated, b"") == "empty_file"


def test_a_file_that_crashes_or_hangs_the_decoder_harms_no_other(
    faulty: None, images: list[bytes]
) -> None:
    with SubprocessDecoder(seconds=2) as isolated:
        assert reason(isolated, b"GIF89a CRASH") == "decoder_crashed"
        assert isolated(images[0], 16, "squash").shape == (16, 16, 3)
        started = time.monotonic()
        assert reason(isolated, b"GIF89a HANG") == "decoder_crashed"
        assert time.monotonic() - started < 10
        assert isolated(images[1], 16, "squash").shape == (16, 16, 3)


def test_the_subprocess_ends_with_its_block(images: list[bytes]) -> None:
    with SubprocessDecoder() as isolated:
        isolated(images[0], 16, "squash")
        assert isolated.process is not None
        number = isolated.process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_the_subprocess_ends_when_the_process_that_started_it_is_killed() -> None:
    program = (
        "import time\n"
        "from cnn.dataset.decoding import SubprocessDecoder\n"
        "print(SubprocessDecoder().start().pid, flush=True)\n"
        "time.sleep(600)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as job:
        assert job.stdout is not None
        below = psutil.Process(int(job.stdout.readline()))
        job.kill()
    _, alive = psutil.wait_procs([below], timeout=10)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def test_the_time_limit_kills_a_process_whose_decoder_hangs(faulty: None) -> None:
    program = (
        "from cnn.dataset.decoding import decode_in_time\n"
        "decode_in_time(b'GIF89a HANG', 16, 'squash', seconds=0.5)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1])
    assert ended.returncode == -signal.SIGALRM


def test_the_time_limit_ends_with_the_image(images: list[bytes]) -> None:
    decode_in_time(images[0], 16, "squash", seconds=5)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
