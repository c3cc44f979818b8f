"""The nodes of a cluster, and whether they all see the same folder."""

import os
import uuid
from pathlib import Path

import ray
from ray.exceptions import TaskUnschedulableError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cnn.errors import UserError
from cnn.place import BucketPath, Place

# Below it Ray unpacks the working directory of a submitted job, and starts the job there.
UPLOADS = "working_dir_files"


def require_lasting(folder: Place, flag: str = "--out") -> None:
    """UserError if a job would write into its upload, which Ray removes, or a bucket's root."""
    if isinstance(folder, Path) and UPLOADS in folder.resolve().parts:
        raise UserError(
            f"{folder} would lie in what the job has uploaded, which Ray removes: give {flag} "
            "a folder that every node has, from its root, or a URI such as s3://…"
        )
    if isinstance(folder, BucketPath) and folder.parent == folder:
        raise UserError(f"{flag} {folder} is a whole bucket: give a folder in it")


def require_shared_images(root: str) -> None:
    """UserError where some node does not see a local folder: all its images would be missed."""
    if "://" not in root and (blind := nodes_without(root)):
        raise UserError(
            f"{root} is not on {', '.join(blind)}, where images would be decoded: "
            "give a folder that is mounted on every node, or a URI such as s3://…"
        )


def require_shared_folder(folder: Place) -> None:
    """UserError where some node would write another folder than this one, of the same name."""
    if not isinstance(folder, Path):
        return
    probe = existing(folder.absolute()) / f".{uuid.uuid4().hex}.tmp"
    try:
        probe.touch()
        blind = nodes_without(str(probe))
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): give another") from None
    finally:
        probe.unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"{folder} is another folder on {', '.join(blind)}, and workers write there: "
            "give --out a folder that is mounted on every node, or a URI such as s3://…"
        )


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return folder if folder.is_dir() else existing(folder.parent)


def nodes_without(file: str) -> list[str]:
    """The addresses of the nodes that do not see a file of this machine."""
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
    """What a node has answered; one that has gone away meanwhile will write nothing anywhere."""
    try:
        return ray.get(answer)
    except (TaskUnschedulableError, WorkerCrashedError):
        return True


def alive() -> list[dict[str, str]]:
    """What Ray knows of each node that is up."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
