"""Figures of a search: its trials by epoch, and by the value of each setting, as inline SVG."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
    StrMethodFormatter,
)

from cnn.report.drawing import ACCENT, INK, MUTED, drawn, short
from cnn.report.tuning import Trial, Tuning
from cnn.settings.ranges import Choice, Integer, LogUniform, Range, Value

# More values, or longer ones, do not fit side by side under a figure of this width.
NAMED_VALUES = 12
LETTERS = 26
GOLDEN = (math.sqrt(5) - 1) / 2


class Group(NamedTuple):
    """Trials drawn alike: groups differ in colour, and in shape for the colour-blind."""

    name: str
    trials: Sequence[Trial]
    line: dict[str, Any]
    dot: dict[str, Any]


def trial_curves(tuning: Tuning) -> str:
    """Validation accuracy by epoch: a line per trial, with a dot where it ended."""
    return drawn("trials", (680, 380), lambda axes: _curves(axes, groups(tuning)))


def trial_slice(tuning: Tuning, name: str) -> str:
    """Best validation accuracy by the value of the dimension `name`: a dot per trial."""
    limits, place = tuning.ranges[name], list(tuning.ranges).index(name)
    return drawn(
        f"slice{place}", (280, 210), lambda axes: _slice(axes, groups(tuning), name, limits)
    )


def text_of(value: Value) -> str:
    """A value as short text on one line."""
    return f"{value:.3g}" if isinstance(value, float) else short(str(value))


def groups(tuning: Tuning) -> list[Group]:
    """The trials that reached an accuracy, those drawn on top last; no group is empty."""
    best, given = tuning.best, tuning.given
    others = [trial for trial in tuning.trials if trial is not best and trial is not given]
    cut = [trial for trial in others if trial.outcome != "finished"]
    finished = [trial for trial in others if trial.outcome == "finished"]
    thin = {"color": MUTED, "linewidth": 0.6, "alpha": 0.7}
    plain = {"color": INK, "linewidth": 1.0, "alpha": 0.45}
    ring = {"color": MUTED, "marker": "o", "markersize": 3.5, "markerfacecolor": "none"}
    dot = {"color": INK, "marker": "o", "markersize": 3.5, "alpha": 0.6}
    dashes = {"color": INK, "linewidth": 1.75, "linestyle": (0, (3, 1.5))}
    diamond = {"color": INK, "marker": "D", "markersize": 5.5}
    thick = {"color": ACCENT, "linewidth": 2.5}
    accent = {"color": ACCENT, "markersize": 7, "alpha": 1}
    found = [
        Group("stopped or failed", cut, thin, ring),
        Group("finished", finished, plain, dot),
    ]
    first = f"trial 0: {'as' if tuning.holds_given else 'nearest to those'} given"
    if given is best:
        found.append(Group(f"{first}, and best", [given], thick, diamond | accent))
    else:
        found.append(Group(first, [given], dashes, diamond))
        if best is not None:
            found.append(Group(f"trial {best.number}: best", [best], thick, dot | accent))
    measured = (
        group._replace(trials=[trial for trial in group.trials if trial.accuracy is not None])
        for group in found
    )
    return [group for group in measured if group.trials]


def _curves(axes: Axes, found: Sequence[Group]) -> None:
    for order, group in enumerate(found, start=2):
        for trial in group.trials:
            axes.plot(*zip(*trial.history, strict=True), **group.line, zorder=order)
            axes.plot(*trial.history[-1], **group.dot, linestyle="none", zorder=order)
        axes.plot([], [], **group.line | group.dot, label=group.name)
    axes.margins(x=0.02)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    _grid(axes)
    # Above the axes, because no corner within them is certain to be empty.
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, labelcolor=INK, borderaxespad=0.2)


def _slice(axes: Axes, found: Sequence[Group], name: str, limits: Range) -> None:
    trials = [trial for group in found for trial in group.trials]
    axes.set_title(name.replace("_", " "), parse_math=False)
    if isinstance(limits, Choice):
        seen = (trial.point[name] for trial in trials)
        levels = {value: at for at, value in enumerate(dict.fromkeys((*limits.values, *seen)))}
        _name_levels(axes, [text_of(value) for value in levels])
    else:
        levels = {}
        _scale(axes, limits)
    for order, group in enumerate(found, start=2):
        dots: list[tuple[Any, Any]] = [
            (_place(trial, trial.point[name], levels), trial.accuracy) for trial in group.trials
        ]
        axes.plot(*zip(*dots, strict=True), **group.dot, linestyle="none", zorder=order)
    _grid(axes)


def _place(trial: Trial, value: Any, levels: dict[Value, int]) -> Any:
    """The position of a value on its axis; trials of one level side by side, always alike."""
    return levels[value] + 0.4 * (trial.number * GOLDEN % 1 - 0.5) if levels else value


def _name_levels(axes: Axes, names: list[str]) -> None:
    axes.set_xlim(-0.5, len(names) - 0.5)
    if len(names) > NAMED_VALUES:
        axes.set_xticks([])
        axes.set_xlabel(f"{len(names)} values")
        return
    aslant: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    crowded = sum(map(len, names)) > LETTERS
    axes.set_xticks(range(len(names)), names, parse_math=False, **aslant if crowded else {})


def _scale(axes: Axes, limits: Any) -> None:
    """Show the whole range of numbers, so that parts without a trial are visible too."""
    axes.update_datalim([(limits.low, 0), (limits.high, 0)], updatey=False)
    if isinstance(limits, LogUniform):
        axes.set_xscale("log")
        decades = math.log10(limits.high / limits.low)
        steps = (1, 2, 5) if decades < 1.2 else (1, 3) if decades < 2.2 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=5))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        whole = isinstance(limits, Integer)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=whole, min_n_ticks=1))


def _grid(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    axes.grid(axis="y", color=MUTED, alpha=0.2, linewidth=0.75)
    axes.set_axisbelow(True)
