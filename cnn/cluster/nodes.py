"""The nodes of a cluster, and whether they all see the same folder."""

import os
import uuid
from pathlib import Path

import ray
from ray.exceptions import TaskUnschedulableError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnn.config import Experiment
from cnn.dataset.prepared import CARD
from cnn.errors import UserError, writing_to
from cnn.files.place import BucketPath, Place, place
from cnn.runs.run_folder import RunFolder

# The folder in which Ray unpacks a submitted job's working directory and starts the job.
UPLOADS = "working_dir_files"


def require_lasting(folder: Place, flag: str = "--out") -> None:
    """Raises UserError if a job would write into its upload, or into the root of a bucket."""
    if isinstance(folder, Path) and UPLOADS in folder.resolve().parts:
        raise UserError(
            f"{folder} is inside the job's upload, which Ray removes: give {flag} "
            "an absolute path that exists on every node, or a URI such as s3://…"
        )
    if flag == "--out" and isinstance(folder, BucketPath) and folder.parent == folder:
        raise UserError(f"{flag} {folder} is a whole bucket: give a folder in it")


def require_lasting_folders(settings: Experiment, run: RunFolder) -> None:
    """The same for a run's folder and for that of its prepared datasets."""
    require_lasting(run.path)
    if settings.prepared is not None:
        require_lasting(place(settings.prepared), "--prepared")


def require_shared_images(root: str) -> None:
    """Raises UserError if a node cannot see a local folder: it would miss all its images."""
    if "://" not in root and (blind := nodes_without(root)):
        raise UserError(
            f"{root} is not on {', '.join(blind)}, where images would be decoded: "
            "give a folder that is mounted on every node, or a URI such as s3://…"
        )


def require_shared_folder(folder: Place) -> None:
    """Raises UserError if this path is another folder on some node, or cannot be written."""
    if not isinstance(folder, Path):
        return
    probe = existing(folder.absolute()) / f".{uuid.uuid4().hex}.tmp"
    with writing_to(folder, "give another folder"):
        try:
            probe.touch()
            blind = nodes_without(str(probe))
        finally:
            probe.unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"{folder} is another folder on {', '.join(blind)}, where workers would write: "
            "give --out a folder that is mounted on every node, or a URI such as s3://…"
        )


def require_shared_dataset(folder: Place) -> None:
    """Raises UserError if a node cannot see a prepared dataset: workers there would fail.

    It is only looked at: the folder may be read-only.
    """
    if isinstance(folder, Path) and (blind := nodes_without(str(folder / CARD))):
        raise UserError(
            f"the prepared images in {folder} are not on {', '.join(blind)}, where workers would "
            "read them: mount the folder on every node, or prepare them in one that is, or at a "
            "URI such as s3://…"
        )


def existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return folder if folder.is_dir() else existing(folder.parent)


def nodes_without(file: str) -> list[str]:
    """The addresses of the nodes that cannot see a file of this machine."""
    nodes = alive()
    if len(nodes) == 1:
        return []
    look = ray.remote(num_cpus=0)(os.path.lexists)
    asked = [
        look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(file)
        for node in nodes
    ]
    seen = zip(nodes, map(sees, asked), strict=True)  # several nodes may share one address
    return sorted({node["NodeManagerAddress"] for node, there in seen if not there})


def sees(answer: "ray.ObjectRef[bool]") -> bool:
    """A node's answer; True if the node was lost meanwhile, because it will write nothing."""
    try:
        return ray.get(answer)
    except (TaskUnschedulableError, WorkerCrashedError):
        return True


def ids() -> set[str]:
    """The nodes that Ray knows as alive."""
    return {node["NodeID"] for node in alive()}


def alive() -> list[dict[str, str]]:
    """Ray's record of each node that is alive."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
