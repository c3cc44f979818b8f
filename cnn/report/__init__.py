"""Predictions become an evaluation, where they have labels, and a mix; both become a report."""

from cnn.report.evaluation import Evaluation, evaluate
from cnn.report.mix import Mix, take_mix
from cnn.report.page import write_report
from cnn.report.tuning import Trial, Tuning, leaderboard

__all__ = [
    "Evaluation",
    "Mix",
    "Trial",
    "Tuning",
    "evaluate",
    "leaderboard",
    "take_mix",
    "write_report",
]
