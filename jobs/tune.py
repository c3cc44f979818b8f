"""Images → leaderboard, best settings, best bundle and report."""

from cnn.config import TuneConfig
from cnn.settings.command import run


def tune(settings: TuneConfig) -> None:
    """Search for the best settings on a folder of images."""
    # Imports are late: --help and a mistyped flag must not wait for Ray and torch.
    from cnn.cluster import environment

    environment.set_defaults()
    from cnn.cluster import tune_run
    from cnn.text.console import Console

    tune_run.tune(settings, Console())


if __name__ == "__main__":
    run(TuneConfig, tune)
