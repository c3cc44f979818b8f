"""Predictions with labels become an evaluation; an evaluation becomes a report."""

from cnn.report.evaluation import Evaluation, evaluate
from cnn.report.page import write_report

__all__ = ["Evaluation", "evaluate", "write_report"]
