"""Predictions become an evaluation, where they have labels, and a mix; both become a report."""

from cnn.report.evaluation import Evaluation, evaluate
from cnn.report.mix import Mix, take_mix
from cnn.report.page import Report, render
from cnn.report.tuning import Trial, Tuning, leaderboard

__all__ = [
    "Evaluation",
    "Mix",
    "Report",
    "Trial",
    "Tuning",
    "evaluate",
    "leaderboard",
    "render",
    "take_mix",
]
