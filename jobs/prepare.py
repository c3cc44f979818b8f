"""Folder of images → prepared dataset; train and tune also do this when needed."""

from cnn.config import PrepareConfig
from cnn.settings.command import run


def prepare(settings: PrepareConfig) -> None:
    """Decode a folder of images into a prepared dataset."""
    # Imports are late: --help and a mistyped flag must not wait for Ray and torch.
    from cnn.cluster import environment

    environment.set_defaults()
    from cnn.cluster import prepare_run
    from cnn.text.console import Console

    prepare_run.prepare(settings, Console())


if __name__ == "__main__":
    run(PrepareConfig, prepare)
