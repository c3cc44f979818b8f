"""Laws of guarded decoding: the same pixels, and no file takes more than itself with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from faults import faulty_decoder

from cnn import digits
from cnn.decoding import SubprocessDecoder, decode_in_time
from cnn.image import Unreadable, decode


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python processes started from now on have a decoder that crashes, or hangs."""
    monkeypatch.setenv("PYTHONPATH", str(faulty_decoder(tmp_path)), prepend=os.pathsep)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = digits.write(tmp_path_factory.mktemp("digits") / "images")
    return [file.read_bytes() for file in sorted(folder.rglob("*.png"))[:20]]


def reason(decoder: SubprocessDecoder, data: bytes) -> str:
    with pytest.raises(Unreadable) as unreadable:
        decoder(data, 16, "squash")
    return unreadable.value.reason


def test_pixels_and_reasons_are_the_decoders_own(images: list[bytes]) -> None:
    with SubprocessDecoder() as apart:
        for data in images:
            plain = decode(data, 16)
            assert np.array_equal(apart(data, 16, "squash"), plain)
            assert np.array_equal(decode_in_time(data, 16, "squash"), plain)
        assert reason(apart, images[0][:60]) == "truncated"
        assert reason(apart, b"") == "empty_file"


def test_a_file_that_crashes_or_hangs_is_alone_with_it(faulty: None, images: list[bytes]) -> None:
    with SubprocessDecoder(seconds=2) as apart:
        assert reason(apart, b"GIF89a CRASH") == "decoder_crashed"
        assert apart(images[0], 16, "squash").shape == (16, 16, 3)
        started = time.monotonic()
        assert reason(apart, b"GIF89a HANG") == "decoder_crashed"
        assert time.monotonic() - started < 10
        assert apart(images[1], 16, "squash").shape == (16, 16, 3)


def test_the_process_apart_ends_with_its_block(images: list[bytes]) -> None:
    with SubprocessDecoder() as apart:
        apart(images[0], 16, "squash")
        assert apart.process is not None
        number = apart.process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_a_decoder_that_hangs_here_ends_this_process(faulty: None) -> None:
    program = (
        "from cnn.decoding import decode_in_time\n"
        "decode_in_time(b'GIF89a HANG', 16, 'squash', seconds=0.5)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1])
    assert ended.returncode == -signal.SIGALRM


def test_the_time_limit_is_over_with_the_image(images: list[bytes]) -> None:
    decode_in_time(images[0], 16, "squash", seconds=5)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
