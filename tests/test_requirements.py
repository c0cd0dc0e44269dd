"""What is declared, pinned and installed: the product's packages apart from those of development."""

import functools
import re
import subprocess
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest

from steps.requirements import NEVER_IMPORTED, closure, imported_modules, normalised, requested
from tests.environments import locked, make_environment

ROOT = Path(__file__).parent.parent
PRODUCT, DEVELOPMENT = ("components", "pipelines", "steps"), ("benchmarks", "docs", "tests", "tools")
OWN = {"benchmarks", "components", "docs", "pipelines", "steps", "tests", "tools"}
RUN_BY_NAME = {
    "flask-wtf": "MLflow's log-in",
    "psycopg2-binary": "MLflow's and ZenML's PostgreSQL",
    "s3fs": "fsspec's s3:// URLs",
    "setuptools": "builds the editable install",
}
PEERS = {"albumentations", "cv2", "kornia"}
"""What benchmarks.synthesis_peers compares with: extra `benchmark` in pyproject.toml."""


def sources(packages: tuple[str, ...]) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


@functools.cache
def installed() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def declared(file: str) -> set[str]:
    return {normalised(requirement.name) for requirement in requested(ROOT / file)}


def owners(modules: dict[str, Path], chosen: set[str]) -> dict[str, set[str]]:
    """Of each third-party module, the distributions it comes from; of several, those that are ``chosen``."""
    names = {
        module: {normalised(name) for name in installed().get(module, ())} for module in modules if module not in OWN
    }
    return {module: names & chosen or names for module, names in names.items()}


def test_the_product_imports_what_is_declared_and_declares_what_it_imports() -> None:
    asked = declared("requirements.in")
    imported = owners(imported_modules(sources(PRODUCT)), asked)
    assert not {module: names for module, names in imported.items() if not names & asked}
    used = {name for names in imported.values() for name in names}
    assert asked - used == set(RUN_BY_NAME), "declared and not imported; say in RUN_BY_NAME who runs it"


def test_development_imports_what_is_declared() -> None:
    asked = declared("requirements.in") | declared("requirements-dev.in")
    imported = owners(imported_modules(sources(DEVELOPMENT)), asked)
    assert not {module: names for module, names in imported.items() if not names & asked}.keys() - PEERS
    assert not declared("requirements.in") & declared("requirements-dev.in")


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_pins_exactly(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    assert not [line for line in lines if not re.match(r"[a-z0-9-]+==[^ ]+( ; .+)?$", line)]
    assert lines == sorted(lines, key=lambda line: line.split("==")[0])


def test_the_locks_hold_what_is_asked_for_with_all_it_needs() -> None:
    product, development = (
        locked((ROOT / name).read_text()) for name in ("requirements.lock", "requirements-dev.lock")
    )
    assert product == closure(requested(ROOT / "requirements.in"))
    assert development == closure(requested(ROOT / "requirements-dev.in")) - product
    assert not product & {"moto", "playwright", "pre-commit", "pytest", "ruff", "trl"}


@pytest.mark.slow
def test_what_a_lock_leaves_out_is_imported_by_none_of_its_modules() -> None:
    for package, left_out in NEVER_IMPORTED.items():
        files = [Path(str(file.locate())) for file in metadata.files(package) or () if file.suffix == ".py"]
        modules = {normalised(module) for module in imported_modules(files)}
        assert files
        assert not modules & left_out


def test_the_peers_of_a_benchmark_are_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {line.split("==")[0] for line in project["optional-dependencies"]["benchmark"]} == PEERS - {"cv2"}


@pytest.mark.slow
def test_every_module_of_the_product_loads_with_the_product_s_packages_alone(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "environment", locked((ROOT / "requirements.lock").read_text()))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sources(PRODUCT)]
    modules = [name.removesuffix(".__init__") for name in names]
    script = f"""
import importlib
from pipelines.environment import prepare
prepare()
for name in {modules}:
    importlib.import_module(name)
import pyiqa, kfp.kubernetes, s3fs, psycopg2, flask_wtf, zenml.zen_server
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SPC_STATE": str(tmp_path / "state")}
    done = subprocess.run(
        [python, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
