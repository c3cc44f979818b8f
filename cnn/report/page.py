"""Reports: one self-contained HTML file that shows the results of a run."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cnn.report import sections, tuning_figures
from cnn.report.album import Album
from cnn.report.evaluation import Evaluation, Finding, Shown
from cnn.report.mix import Mix
from cnn.report.tuning import Tuning
from cnn.text.plural import counted
from cnn.text.ratio import percent

# The sections in order: the name on the page, and the content that must exist for it to be shown.
# The key is also the name of its template and of its anchor.
SECTIONS = {
    "findings": ("Findings", "findings"),
    "comparison": ("Comparison", "comparison"),
    "search": ("Search", "search"),
    "confusion": ("Mistakes", "evaluation"),
    "images": ("Images", "galleries"),
    "mix": ("Class mix", "class_mix"),
    "classes": ("Classes", "evaluation"),
    "confidence": ("Confidence", "evaluation"),
    "learning": ("Learning", "curves"),
    "unreadable": ("Unreadable files", "unreadable_reasons"),
    "settings": ("Settings", "facts"),
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """The content of a page; what is missing is not shown.

    evaluation: None if no image could be evaluated. made: how the run was made, shown at the top as
    it is; facts: every setting, at the end. mix: of a scoring run. history: a row per epoch, as in
    history.csv; best_epoch: the epoch kept for its validation accuracy. unreadable: pairs of path
    and reason; with a `mix`, which counts them all, only those to show. warnings: sentences for the
    top. tuning: the search whose best trial is evaluated. album: the images to show; thumbnails:
    their `data:` URIs by path.
    """

    title: str
    evaluation: Evaluation | None
    made: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    mix: Mix | None = None
    history: pd.DataFrame | None = None
    best_epoch: int | None = None
    unreadable: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    tuning: Tuning | None = None
    album: Album | None = None
    thumbnails: Mapping[str, str] = field(default_factory=dict)


def render(report: Report) -> str:
    """The page of a report. All text is escaped; it loads nothing and runs only its own script."""
    evaluation, mix, history = report.evaluation, report.mix, report.history
    content = {
        "evaluation": evaluation,
        "mix": mix,
        "facts": report.facts,
        "findings": report.findings,
        "galleries": sections.galleries(report.album) if report.album else [],
        **sections.unreadable(report.unreadable, mix),
        **(sections.evaluated(evaluation, report.album, report.thumbnails) if evaluation else {}),
        **(sections.mixture(mix) if mix and mix.scored else {}),
        **(
            sections.training(history, report.best_epoch)
            if history is not None and len(history)
            else {}
        ),
        **(sections.search(report.tuning) if report.tuning else {}),
    }
    return page(
        "report.html.jinja",
        title=report.title,
        counts=sections.counts(evaluation, mix),
        made=report.made,
        warnings=report.warnings,
        thumbnails=report.thumbnails,
        sections={key: SECTIONS[key][0] for key in SECTIONS if content.get(SECTIONS[key][1])},
        **content,
    )


def page(template: str, **content: Any) -> str:
    """A page from a template, with our style and script, and a policy that allows no others."""
    environment = _environment()
    style, script = (_text(environment, name) for name in ("style.css", "script.js"))
    return environment.get_template(template).render(
        style=Markup(style), script=Markup(script), policy=_policy(style, script), **content
    )


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: only `data:` images, this style and this script."""
    return (
        f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _text(environment: Environment, name: str) -> str:
    """The text of a file in the templates' folder."""
    assert environment.loader
    return environment.loader.get_source(environment, name)[0]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cnn.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "count": sections.count,
        "counted": counted,
        "text": tuning_figures.text_of,
        "told": _told,
        "breakable": _breakable,
    }
    return environment


def _told(image: Shown) -> str:
    """The alternative text of an image."""
    if image.label is None or image.label == image.predicted:
        return f"{image.predicted}: {image.path}"
    return f"{image.label} predicted as {image.predicted}: {image.path}"


def _breakable(path: str) -> Markup:
    """A path that may break across lines after each folder."""
    return Markup("/<wbr>").join(map(escape, path.split("/")))
