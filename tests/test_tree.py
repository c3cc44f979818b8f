"""Laws of the source tree: which module may import which, and what every module must be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from cnn import config

ROOT = Path(__file__).parents[1]

# Each module imports from the layers below its own, and from no other.
LAYERS = (
    "jobs",
    "cluster.tune_run",
    "cluster.train_run cluster.score_run",
    "cluster.prepare_run cluster.tuning",
    "cluster.watch cluster.halving",
    "cluster.trials",
    "cluster.tuning_plan cluster.training cluster.scoring",
    "cluster.training_plan cluster.worker cluster.progress cluster.checkpoints cluster.ingest",
    "cluster.passes",
    "cluster.streaming cluster.scoring_plan cluster.nodes cluster.gauges",
    "cluster.session cluster.trainer",
    "cluster.capacity cluster.token cluster.environment cluster.search_state",
    "cluster.autoscaler",
    "runs.dry_run",
    "report.training report.scoring training.checkpoint dataset.source",
    "report.preview runs.preflight scoring.sort_run",
    "report.page report.provenance",
    "report.sections loop search.space",
    "report.figures report.comparison report.findings report.thumbnail",
    "report.confusion report.album",
    "report.suspicion scoring.scoring_job",
    "report.evaluation report.tuning_figures report.mix",
    "scoring.score_folder dataset.pixels",
    "bundle training.batches dataset.prepared dataset.census runs.run_folder scoring.worklist",
    "network augment optim training.history training.progressive report.tally "
    "dataset.digits dataset.splits settings.command scoring.sorting scoring.spreadsheet",
    "settings.schema dataset.parts metrics report.columns report.tuning report.drawing "
    "search.study",
    "manifest files.reader scoring.prediction",
    "files.folder files.parquet dataset.decoding",
    "image files.atomic training.cuda_graph training.calibration training.precision "
    "training.balance training.seeds training.shared_weights",
    "training.descent training.meeting",
    "files.lock",
    "config files.place dataset.resizing",
    "settings.ranges settings.defaults text.console",
    "errors text.terminal machine text.plural text.spelling text.ratio text.duration "
    "files.unreadable files.offered dataset.fit scoring.sorted_names",
)
DEPTH = {name: depth for depth, layer in enumerate(LAYERS) for name in layer.split()}

TOP = {"jobs", "cnn", "tests", "cluster.yaml", "pyproject.toml", "README.md", "LICENSE"}

IMPORT_ALL = """
import importlib, logging, os, random, sys
# These set environment variables when they are imported: import them before we look.
import ray.data, ray.train.torch, sklearn.metrics, torch, torchvision

def state():
    seeds = random.getstate(), torch.initial_seed()
    log = logging.root.level, list(logging.root.handlers)
    return dict(os.environ), os.listdir(), seeds, log

before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
    changed = [(a, b) for a, b in zip(before, state(), strict=True) if a != b]
    assert not changed, (name, changed)
"""


def files(*folders: str) -> list[Path]:
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


TREES = {dotted(file): ast.parse(file.read_text("utf-8")) for file in files("cnn", "jobs")}


def place(module: str) -> str:
    """The name of a module in LAYERS."""
    return "jobs" if module.startswith("jobs.") else module.removeprefix("cnn.")


def imports(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported anywhere in a file, at its top or late."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (name if name in TREES else node.module for name in names)


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=options.pop("cwd", ROOT),
        capture_output=True,
        text=True,
        **options,
    )


def test_only_cluster_and_jobs_import_ray() -> None:
    importing = {
        name
        for name, tree in TREES.items()
        if any(module.split(".")[0] == "ray" for module in imports(tree))
    }
    assert importing  # otherwise this test searches for the wrong name
    assert {name for name in importing if not name.startswith(("cnn.cluster.", "jobs."))} == set()


def test_every_module_has_its_layer() -> None:
    empty = {name for name, tree in TREES.items() if len(tree.body) == 1}  # a docstring alone
    assert {place(name) for name in TREES.keys() - empty} == DEPTH.keys()


def test_imports_go_to_lower_layers_only() -> None:
    upward = [
        f"{name} imports {module}"
        for name, tree in TREES.items()
        for module in imports(tree)
        if module in TREES and not DEPTH[place(name)] < DEPTH[place(module)]
    ]
    assert upward == []


def test_no_module_has_a_catch_all_name() -> None:
    catch_all = {"util", "utils", "common", "helper", "helpers", "misc"}
    assert [f for f in files("cnn", "jobs", "tests") if catch_all & {f.stem, f.parent.name}] == []


def test_importing_a_module_has_no_side_effects(tmp_path: Path) -> None:
    done = python("-c", IMPORT_ALL, *TREES, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", TREES)
def test_every_module_docstring_starts_with_one_sentence(module: str) -> None:
    opening, *_ = (ast.get_docstring(TREES[module]) or "").partition("\n")
    assert opening.strip(".: ") and opening.endswith((".", ":"))


@pytest.mark.parametrize("job", [name for name in TREES if name.startswith("jobs.")])
def test_jobs_contain_no_logic(job: str) -> None:
    loops = (ast.For, ast.While, ast.comprehension)
    assert [node for node in ast.walk(TREES[job]) if isinstance(node, loops)] == []
    assert len((ROOT / job.replace(".", "/")).with_suffix(".py").read_text().splitlines()) < 40


def test_every_setting_is_used() -> None:
    own = [node for node in ast.walk(TREES["cnn.config"]) if isinstance(node, ast.FunctionDef)]
    # A validator checks settings, but does not use them.
    methods = [method for method in own if not method.decorator_list]
    others = [tree for name, tree in TREES.items() if name != "cnn.config"]
    used = {
        node.attr
        for tree in (*methods, *others)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    }
    names = set(setting_names())
    assert names and names - used == set()


def setting_names() -> Iterator[str]:
    """Every setting of every group."""
    for group in vars(config).values():
        if isinstance(group, type) and issubclass(group, config.Settings):
            for name, field in group.model_fields.items():
                kind = field.annotation
                if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
                    yield name


def test_the_linter_and_the_formatter_report_nothing() -> None:
    check, layout = (python("-m", "ruff", *words) for words in (["check"], ["format", "--check"]))
    assert check.returncode == 0, check.stdout
    assert layout.returncode == 0, layout.stdout


def test_the_type_checker_reports_nothing() -> None:
    checked = python("-m", "mypy")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_repository_root_holds_only_known_entries() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    tops = {path.split("/")[0] for path in listed.stdout.splitlines()}
    assert {name for name in tops if not name.startswith(".")} <= TOP
    assert {"cnn", "jobs"} <= tops
