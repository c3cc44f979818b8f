"""Folder of images → prepared dataset; train and tune do this by themselves when needed."""

from cnn.command import run
from cnn.config import PrepareConfig


def prepare(settings: PrepareConfig) -> None:
    """Imports late: --help and a mistyped flag should not wait for Ray and torch."""
    from cnn.cluster import environment

    environment.set_defaults()
    from cnn.cluster import prepare_run
    from cnn.console import Console

    prepare_run.prepare(settings, Console())


if __name__ == "__main__":
    run(PrepareConfig, prepare)
