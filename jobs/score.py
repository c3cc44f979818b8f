"""Model bundle and folders of images → predictions, evaluation and report."""

from cnn.config import ScoreConfig
from cnn.settings.command import run


def score(settings: ScoreConfig) -> None:
    """Score folders of images with a model bundle."""
    # Imports are late: --help and a mistyped flag must not wait for Ray and torch.
    from cnn.cluster import environment

    environment.set_defaults()
    from cnn.cluster import score_run
    from cnn.text.console import Console

    score_run.score(settings, Console())


if __name__ == "__main__":
    run(ScoreConfig, score)
