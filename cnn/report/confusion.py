"""Views of the confusion matrix: which classes they show, and in which order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from cnn.report.evaluation import Evaluation

# More names do not fit beside a matrix; beyond it, the most confused classes are shown first.
NAMED_CLASSES = 40
MIXED_CLASSES = 30
# Fewer classes than this are easy to read in any order.
FEW_CLASSES = 8
# The time to order leaves grows with the cube of their number: seconds at a thousand.
ORDERED_LEAVES = 250


@dataclass(frozen=True)
class View:
    """One view of the matrix: the labels of the rows and columns that it shows, in order."""

    key: str
    title: str
    order: list[int]

    @property
    def named(self) -> bool:
        """Whether its rows and columns have room for names."""
        return len(self.order) <= NAMED_CLASSES


def views(evaluation: Evaluation) -> list[View]:
    """The views of an evaluation's matrix; the page opens with the first."""
    matrix = np.asarray(evaluation.confusion_matrix)
    by_name = list(range(len(matrix)))
    if len(matrix) < FEW_CLASSES:
        return [View("name", "by name", by_name)]
    similar = by_similarity(matrix)
    every = [
        View("similar", "by similarity", similar),
        View("trouble", "by F1", by_trouble(evaluation)),
        View("name", "by name", by_name),
    ]
    if len(matrix) <= NAMED_CLASSES:
        return every
    mixed = most_mixed(matrix, MIXED_CLASSES)
    first = View("mixed", f"the {len(mixed)} most confused", [c for c in similar if c in mixed])
    return [first, *every] if mixed else every


def by_trouble(evaluation: Evaluation) -> list[int]:
    """The labels, the lowest F1 first; those without images, which have no F1, last."""
    rows = evaluation.per_class
    return sorted(range(len(rows)), key=lambda label: (not rows[label].support, rows[label].f1))


def by_similarity(matrix: NDArray[np.int64]) -> list[int]:
    """The labels, with classes that are confused with each other side by side.

    Hierarchical clustering (average linkage) by the shares of each class predicted as the other.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    distance = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance), "average", optimal_ordering=len(matrix) <= ORDERED_LEAVES)
    return [int(label) for label in leaves_list(tree)]


def most_mixed(matrix: NDArray[np.int64], limit: int) -> set[int]:
    """The labels, true and predicted, of the most frequent mistakes: at most `limit` labels."""
    mistakes = matrix - np.diag(matrix.diagonal())
    found: set[int] = set()
    for cell in np.argsort(-mistakes, axis=None, kind="stable"):
        pair = {int(label) for label in divmod(cell, len(matrix))}
        if not mistakes.flat[cell] or len(found | pair) > limit:
            break
        found |= pair
    return found
