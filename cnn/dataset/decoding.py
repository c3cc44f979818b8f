"""Safe decoding: under a time limit, or in a subprocess that may crash.

A crash in native code cannot be caught: it kills the process. The first attempt decodes in this
process, which costs nothing extra, under a time limit that kills the process too. After a process
has been lost, its images are decoded in a subprocess, which can be lost without harm.
"""

import pickle
import selectors
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, Self

import numpy as np

from cnn.dataset.fit import Fit
from cnn.files.unreadable import Unreadable
from cnn.image import decode

# 90 megapixels take about 2 s, or 20 s on a fully loaded machine.
SECONDS = 60.0

_LENGTH = struct.Struct("<Q")


Decoder = Callable[[bytes], np.ndarray]
"""Decodes the bytes of an image file, at one size and fit, to uint8; or raises Unreadable."""


def look(
    path: str, error: str | None, read: Callable[[str], bytes], decode: Decoder
) -> tuple[bytes | None, bytes | None, str | None]:
    """Content, pixels and error of one listed file: the first two, or only the last."""
    if error is not None:
        return None, None, error
    try:
        content = read(path)
        return content, decode(content).tobytes(), None
    except Unreadable as unreadable:
        return None, None, unreadable.reason


def decode_in_time(data: bytes, size: int, fit: Fit, seconds: float = SECONDS) -> np.ndarray:
    """Decode in this process, which SIGALRM kills if decoding takes longer than `seconds`.

    The kernel's timer needs no thread, and also stops native code, which no exception can reach.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return decode(data, size, fit)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def decoder(size: int, fit: Fit, isolated: bool) -> Iterator[Decoder]:
    """The decoder of one task: in this process, or in a subprocess if `isolated`."""
    if not isolated:
        yield partial(decode_in_time, size=size, fit=fit)
        return
    with SubprocessDecoder() as decode:
        yield partial(decode, size=size, fit=fit)


class SubprocessDecoder:
    """Decodes in a subprocess; a file that crashes or hangs it is `decoder_crashed`.

    The subprocess starts with the first image, lives until the `with` block ends, and is replaced
    if it is lost. It costs a third of a second to start, and a tenth of a millisecond per image.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.end()

    def __call__(self, data: bytes, size: int, fit: Fit) -> np.ndarray:
        process = self.process or self.start()
        assert process.stdin is not None and process.stdout is not None
        try:
            send(process.stdin, (data, size, fit))
            answer = self.answer(process.stdout)
        except (OSError, EOFError, TimeoutError):
            self.end()
            raise Unreadable("decoder_crashed") from None
        if isinstance(answer, Unreadable):
            raise answer
        return np.frombuffer(answer, np.uint8).reshape(size, size, 3)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process, and wait until it is ready: the time limit is for an image only."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cnn.dataset.decoding"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process: it would print a traceback
        )
        assert self.process.stdout is not None
        receive(self.process.stdout)
        return self.process

    def answer(self, stream: IO[bytes]) -> bytes | Unreadable:
        """The process's answer; TimeoutError if none comes in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            if not selector.select(self.seconds):
                raise TimeoutError
        found: bytes | Unreadable = receive(stream)
        return found

    def end(self) -> None:
        """Kill the process, which may hang."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()


def send(stream: IO[bytes], message: object) -> None:
    """Write the length of a message, then the message."""
    content = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message from our own process; EOFError if the stream ends before it is complete."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    content = stream.read(_LENGTH.unpack(head)[0])
    return pickle.loads(content)  # only from a process that we started


def answer_all(requests: IO[bytes], answers: IO[bytes]) -> None:
    """The subprocess: report that it is ready, then decode requests until they end."""
    send(answers, None)
    while True:
        try:
            data, size, fit = receive(requests)
        except EOFError:
            return
        try:
            send(answers, decode(data, size, fit).tobytes())
        except Unreadable as unreadable:
            send(answers, unreadable)


if __name__ == "__main__":
    answer_all(sys.stdin.buffer, sys.stdout.buffer)
