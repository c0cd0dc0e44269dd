"""The wheel, built and installed away from any checkout, with the packages that it asks for and no others."""

import os
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from components.imaging.photo import Photo, read_photo, write_photo
from steps.requirements import closure, normalised, requested
from tests.conftest import make_photo
from tests.environments import make_environment
from tests.tiny_models import write_tiny_package

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
PACKAGES = ("components", "pipelines", "steps")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "SPC_STATE"}}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git has of the packages."""
    folder = tmp_path_factory.mktemp("wheel")
    names = ["pyproject.toml", "requirements.in", "README.md", "LICENSE", *PACKAGES]
    listed = subprocess.run(["git", "ls-files", *names], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = run(*pip, "--wheel-dir", folder, folder / "source", cwd=folder)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Python and `smartphotocrafter` where the wheel is installed with what it requires."""
    folder = tmp_path_factory.mktemp("installed")
    python = make_environment(folder, closure(requested(ROOT / "requirements.in")))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    done = run(*pip, wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    return python.parent


def test_it_holds_the_packages_with_their_data_and_asks_for_what_they_import(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        required = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist", [])
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    for package in PACKAGES:
        beside = {
            path for path in (ROOT / package).rglob("*") if path.suffix in {".py", ".html", ".j2", ".json", ".yaml"}
        }
        assert {str(path.relative_to(ROOT)) for path in beside} <= set(names)
    always = [Requirement(line) for line in required if "extra ==" not in line]
    assert {normalised(one.name) for one in always} == {
        normalised(one.name) for one in requested(ROOT / "requirements.in")
    }


def test_a_package_named_by_its_folder_enhances(commands: Path, tmp_path: Path) -> None:
    said = run(commands / "smartphotocrafter", "--help", cwd=tmp_path)
    assert said.returncode == 0 and "enhance" in said.stdout, said.stderr
    package = write_tiny_package(tmp_path / "parts", tmp_path / "package").folder
    write_photo(Photo(make_photo(40, 60)), tmp_path / "in.png")
    enhance = [commands / "smartphotocrafter", "enhance", "in.png", "out.png", "--draws", "1"]
    done = run(*enhance, "--model", package, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_photo(tmp_path / "out.png").pixels.shape == (3, 40, 60)


def test_without_a_model_it_asks_for_one(commands: Path, tmp_path: Path) -> None:
    code = "from components.inference.commands import CHAMPION, model_folder; model_folder(CHAMPION).__enter__()"
    done = run(commands / "python", "-c", code, cwd=tmp_path)
    assert "CommandError: which model?" in done.stderr
    assert "name the directory of one with --model" in done.stderr


def test_pipelines_say_that_they_need_a_checkout(commands: Path, tmp_path: Path) -> None:
    done = run(commands / "smartphotocrafter", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("this needs a checkout of the repository")
    assert "Traceback" not in done.stderr
