"""Decoding that ends, whatever the file: a decoder that hangs is ended, one that crashes is apart.

Native code cannot be caught when it crashes: it takes its process along. So a first try happens
here, where it costs nothing more, under a time limit that ends this process too; and once a
process has been lost, its images are decoded in another one that may be lost without harm.
"""

import pickle
import selectors
import signal
import struct
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any, Protocol, Self

import numpy as np

from cnn.image import Fit, Unreadable, decode

# 90 megapixels take some 2 s, on a machine as busy as can be 20.
SECONDS = 60.0

_LENGTH = struct.Struct("<Q")


class Decoder(Protocol):
    """Bytes of one image file to `(size, size, 3)` uint8; Unreadable says why not."""

    def __call__(self, data: bytes, size: int, fit: Fit) -> np.ndarray: ...


def decode_in_time(data: bytes, size: int, fit: Fit, seconds: float = SECONDS) -> np.ndarray:
    """Decode in this process, which SIGALRM ends where that takes longer than `seconds`.

    The kernel's timer needs no thread, and ends native code too, that no exception can reach.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return decode(data, size, fit)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def decoder(isolated: bool) -> "AbstractContextManager[Decoder]":
    """The decoder of one task: that in this process, or to be isolated that in another."""
    return SubprocessDecoder() if isolated else nullcontext(decode_in_time)


class SubprocessDecoder:
    """Decodes in a process of its own; a file that costs that process is `decoder_crashed`.

    The process starts with the first image, lives until the `with` block ends, and is replaced
    where it is lost. It costs a third of a second to start, and a tenth of a millisecond an image.
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
        """Start the process, and wait until it is there: the time limit is an image's alone."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cnn.decoding"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        receive(self.process.stdout)
        return self.process

    def answer(self, stream: IO[bytes]) -> bytes | Unreadable:
        """What the process says; TimeoutError where it says nothing in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            if not selector.select(self.seconds):
                raise TimeoutError
        found: bytes | Unreadable = receive(stream)
        return found

    def end(self) -> None:
        """End the process, which may hang."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def send(stream: IO[bytes], message: object) -> None:
    """Write a message, after its length."""
    content = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message of a process of our own; EOFError where it ends before or in one."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    content = stream.read(_LENGTH.unpack(head)[0])
    return pickle.loads(content)  # of a child that we started, and of nobody else


def answer_all(requests: IO[bytes], answers: IO[bytes]) -> None:
    """What the other process does: say that it is there, decode what comes, until nothing does."""
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
