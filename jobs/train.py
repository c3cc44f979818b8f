"""Images → model bundle, evaluation and report."""

from cnn.config import TrainConfig
from cnn.settings.command import run


def train(settings: TrainConfig) -> None:
    """Train on a folder of images."""
    # Imports are late: --help and a mistyped flag must not wait for Ray and torch.
    from cnn.cluster import environment

    environment.set_defaults()
    from cnn.cluster import train_run
    from cnn.text.console import Console

    train_run.train(settings, Console())


if __name__ == "__main__":
    run(TrainConfig, train)
