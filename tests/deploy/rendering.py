"""The overlays of deploy/ for the tests: as kubectl renders them where it is there, and as they are written."""

import copy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ROOT / "deploy" / "overlays"
KUBECTL = shutil.which("kubectl")


def kubectl_kustomize(overlay: str) -> list[dict[str, Any]]:
    """What `kubectl kustomize` makes of the overlay."""
    assert KUBECTL
    done = subprocess.run(
        [KUBECTL, "kustomize", str(OVERLAYS / overlay)], check=True, capture_output=True, text=True, timeout=60
    )
    return list(yaml.safe_load_all(done.stdout))


def resources(overlay: str) -> list[dict[str, Any]]:
    """Every object of the overlay and of what it stands on, as written, without patches and transformations."""
    return [copy.deepcopy(item) for item in _read(OVERLAYS / overlay)]


def pod_templates(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod template of every workload."""
    for item in objects:
        if item["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield item["metadata"]["name"], item["spec"]["template"]


def _read(folder: Path) -> Iterator[dict[str, Any]]:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        if path.is_dir():
            yield from _read(path)
        else:
            yield from yaml.safe_load_all(path.read_text())
