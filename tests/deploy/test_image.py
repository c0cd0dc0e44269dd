"""The Dockerfile by the rules of hadolint, and its agreement with the rest of the project. No image is built here."""

import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines import environment
from tests.deploy.rendering import ROOT


class Instruction(NamedTuple):
    """One instruction of the Dockerfile, with continued lines joined."""

    name: str
    text: str


def instructions() -> list[Instruction]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def final_stage() -> list[Instruction]:
    found = instructions()
    (*_, last) = [index for index, item in enumerate(found) if item.name == "FROM"]
    return found[last:]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.is_file():
        pytest.skip("hadolint is not installed")
    command = [str(hadolint), "--no-color", "--format", "json", str(ROOT / "Dockerfile")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == []


def test_two_stages_and_the_second_has_no_build_leftovers() -> None:
    bases = [item for item in instructions() if item.name == "FROM"]
    assert len(bases) == 2
    assert any(item.text.startswith("--from=dependencies /opt/venv") for item in final_stage() if item.name == "COPY")
    installs = [item.text for item in instructions() if "pip install" in item.text]
    assert installs
    assert all("--no-cache-dir" in text for text in installs)
    for item in instructions():
        if "apt-get install" in item.text:
            assert "--no-install-recommends" in item.text
            assert "rm -rf /var/lib/apt/lists/*" in item.text


def test_every_package_comes_from_the_lock() -> None:
    for item in instructions():
        for command in re.findall(r"pip install ([^&;]+)", item.text):
            assert "--requirement /tmp/requirements.lock" in command or "--no-deps" in command


def test_both_variants_come_from_one_file_and_a_third_is_refused() -> None:
    (install,) = [item.text for item in instructions() if item.name == "RUN" and "requirements.lock" in item.text]
    (case,) = re.findall(r"case \"\$VARIANT\" in (.+) esac", install)
    assert [label.strip() for label in re.findall(r"(?:^|;;)\s*([a-z*]+)\)", case)] == ["cuda", "cpu", "*"]
    (script,) = re.findall(r"sed -i -E '([^']+)'", install)
    lock = (ROOT / "requirements.lock").read_text()
    done = subprocess.run(["sed", "-E", script], input=lock, stdout=subprocess.PIPE, check=True, text=True)
    before, after = set(lock.splitlines()), set(done.stdout.splitlines())
    torch = {line for line in before if line.startswith(("torch==", "torchvision=="))}
    assert after - before == {f"{line}+cpu" for line in torch}, (
        "or pip takes CUDA's where the index of CPU wheels is away"
    )
    dropped = before - after - torch
    assert any(line.startswith("nvidia-cu") for line in dropped)
    assert all(line.startswith(("nvidia-", "cuda-", "triton=")) for line in dropped)


def test_the_user_is_a_number_that_is_not_root() -> None:
    (*_, user) = [item.text for item in final_stage() if item.name == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "Kubernetes can check runAsNonRoot for numbers only"


def test_no_secret_is_passed_at_build_time() -> None:
    for item in instructions():
        if item.name in {"ARG", "ENV"}:
            assert not re.search(r"PASSWORD|SECRET|TOKEN(?!IZERS)|ACCESS_KEY|API_KEY", item.text), item.text


def test_the_pods_have_the_environment_of_the_laptop() -> None:
    (text,) = [item.text for item in final_stage() if item.name == "ENV"]
    image = dict(pair.split("=", 1) for pair in text.split())
    source = Path(environment.__file__).read_text()
    laptop = dict(re.findall(r'"([A-Z_]+)": "([a-z0-9]+)"', source))
    for name in (
        "ZENML_ANALYTICS_OPT_IN",
        "MLFLOW_DISABLE_TELEMETRY",
        "GX_ANALYTICS_ENABLED",
        "DVC_NO_ANALYTICS",
        "HF_HUB_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
        "TOKENIZERS_PARALLELISM",
        "DO_NOT_TRACK",
    ):
        assert image[name] == laptop[name], name


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps ``path`` out; the last pattern that matches decides, as Docker has it."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or line.startswith("#"):
            continue
        parts = path.split("/")
        prefixes = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        alternatives = [pattern, pattern.removeprefix("**/")] if pattern.startswith("**/") else [pattern]
        tails = parts if pattern.startswith("**/") else prefixes
        if any(fnmatch.fnmatchcase(tail, alternative) for tail in tails for alternative in alternatives):
            verdict = not line.startswith("!")
    return verdict


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    copies = [item.text for item in instructions() if item.name == "COPY" and "--from" not in item.text]
    wanted = {name for text in copies for name in text.split()[:-1] if not name.startswith("--")}
    assert {"requirements.lock", "components", "pipelines", "steps", "configs", "data.dvc", ".dvc/config"} <= wanted
    for name in wanted:
        assert (ROOT / name).exists(), name
        assert not ignored(name), name
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    for name in [*tracked, ".git/config", ".spc/pipeline.log", ".venv/bin/python", "data/photos/a.jpg", ".env"]:
        if not ignored(name):
            assert any(name == copied or name.startswith(f"{copied}/") for copied in wanted), name
    for secret in ("components/.env", "configs/.env.production", "configs/tls.key", "steps/__pycache__/a.pyc"):
        assert ignored(secret), secret
