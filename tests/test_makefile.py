"""What a user gives to make is data: every target hands hostile names on as they are, and runs nothing that is in them.

The real Makefile runs in a folder of its own, where the programs of the environment print the words they were given.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.arguments import filled

ROOT = Path(__file__).parent.parent
PROGRAM = f"""#!{sys.executable} -S
import json, os, sys
if "components.arguments" in sys.argv[1:4]:
    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
print(json.dumps([*sys.argv[1:], *filter(None, [os.environ.get("SPC_TEST_CONTEXT")])]))
"""
HOSTILE = {
    "backtick": "a`touch ran`.jpg",
    "substitution": "$(touch ran).jpg",
    "doubled": "$$(touch ran).jpg",
    "function of make": "$(shell touch ran)x",
    "curly function of make": "${shell touch ran}x",
    "variable": "cash$money.jpg",
    "shell variable": "${HOME}$HOME",
    "quotes": 'it\'s "quoted"',
    "ends a quotation": "'; touch ran; '",
    "semicolon": "a;touch ran;&touch ran|touch ran>ran",
    "blanks": "two  words",
    "line": "first\nsecond",
    "line of a recipe": "x\n\ttouch ran",
    "comment": "a#b",
    "backslash": "a\\",
    "backslashes": "\\a\\\\",
    "dash": "-a.jpg",
    "long option": "--version",
    "glob": "*.jpg?",
    "tilde": "~",
    "placeholder": "{ARGS:words}",
    "percent": "100%s %",
    "unicode": "日本 ü\u00a0.jpg",
}
STAMPS = (".venv/.installed", ".venv/.developing", ".spc/data.stamp")
ONE = ["--config={CONFIG}", "--stack={STACK}"]
TARGETS = {  # what each target runs, with the parameters as whole words
    "pipeline": ["run", *ONE, "--set={SET}", "{ARGS}"],
    "test": ["-m", "pytest", "--numprocesses={WORKERS}", "--dist", "loadfile", "{ARGS}"],
    "test-files": ["-m", "tools.photo_files", "--", "{FOLDER}"],
    "enhance": ["enhance", "{ARGS}", "--", "{PHOTO}", "{OUT}"],
    "tables": ["tables", *ONE, "--set={SET}", "--version={VERSIONS}"],
    "ablation": ["ablation", *ONE, "--set={SET}"],
    "serve": ["serve", "{ARGS}"],
    "demo": ["demo", "{ARGS}"],
    "champion": ["champion", "--stack={STACK}"],
    "rollback": ["rollback", "--stack={STACK}", "--to={TO}", "--reason={REASON}"],
    "fuzz": ["-m", "tools.fuzz", "{TARGET}", "{DURATION}", "{ARGS}"],
    "ui": ["ui", "--port={PORT}"],
    "stack": ["stack", "--stack={STACK}"],
    "doctor": ["doctor", *ONE, "--set={SET}"],
    "plan": ["plan", "--config={CONFIG}", "{ARGS}"],
    "retrain": ["retrain", *ONE, "--set={SET}", "{ARGS}"],
    "schedule": [
        *["schedule", "--cron={CRON}", *ONE, "--set={SET}"],
        *["--repository={REPOSITORY}", "--branch={BRANCH}"],
    ],
    "unschedule": ["unschedule", "--stack={STACK}"],
    "test-cluster": ["-m", "pytest", "tests/cluster", "-m", "", "{ARGS}", "{CONTEXT}"],
    "base": ["-m", "tools.base_models", "{ARGS}"],
    "benchmark": ["-m", "benchmarks.main", "{ARGS}"],
    "benchmark-quality": ["-m", "benchmarks.quality", "{ARGS}"],
    "benchmark-data": ["-m", "benchmarks.data", "{ARGS}"],
    "benchmark-train": ["-m", "benchmarks.training", "{ARGS}"],
    "benchmark-serving": ["-m", "benchmarks.serving", "{ARGS}"],
    "benchmark-enhance": ["-m", "benchmarks.enhance", "{ARGS}"],
    "benchmark-orchestration": ["-m", "benchmarks.orchestration", "{ARGS}"],
    "benchmark-registry": ["-m", "benchmarks.registry_kills", "{ARGS}"],
    "benchmark-start": ["-m", "benchmarks.start", "{ARGS}"],
    "benchmark-scale": ["-m", "benchmarks.scale", "{ARGS}", "--", "{OUT}"],
}
WITHOUT_PARAMETERS = {
    "help",
    "browser",
    "pictures",
    "docs",
    "check",
    "check-state",
    "lint",
    "sbom",
    "data",
    "lock",
    "clean",
    "distclean",
    "force",
}
PARAMETERS = sorted({word[word.index("{") + 1 : -1] for words in TARGETS.values() for word in words if "{" in word})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Makefile, in which all is installed and fetched."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "components").mkdir()
    for name in ("__init__.py", "arguments.py"):
        shutil.copy(ROOT / "components" / name, folder / "components")
    for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml", "data.dvc", *STAMPS):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    for name in ("data/photos", "data/base"):
        (folder / name).mkdir(parents=True)
    for name in ("python", "smartphotocrafter"):
        program = folder / ".venv" / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(PROGRAM)
        program.chmod(0o755)
    return folder


def make(project: Path, target: str, parameters: dict[str, str], by_environment: bool = False) -> list[str]:
    """The words that the program of the target was given."""
    given = [] if by_environment else [f"{name}={value}" for name, value in parameters.items()]
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name and name not in PARAMETERS}
    environment |= parameters if by_environment else {}
    done = subprocess.run(
        ["make", target, *given], cwd=project, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    left = project / "ran"
    ran = left.exists()
    left.unlink(missing_ok=True)
    assert not ran, "a command in the parameter was run"
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def expected(target: str, parameters: dict[str, str]) -> list[str]:
    """The words of the target with the parameters put in, lists of one item each."""
    words = []
    for word in TARGETS[target]:
        start, _, name = word.partition("{")
        words.append(start + parameters[name[:-1]] if name else word)
    return words


def every_parameter(target: str, value: str) -> dict[str, str]:
    """All that the target takes, each hostile; what is a list is given as a list of that one."""
    taken = [word[word.index("{") + 1 : -1] for word in TARGETS[target] if "{" in word]
    return dict.fromkeys(taken, value)


def as_given(parameters: dict[str, str]) -> dict[str, str]:
    return {name: shlex.quote(value) if name == "ARGS" else value for name, value in parameters.items()}


def test_the_table_has_every_target() -> None:
    (phony,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY: ")]
    assert set(phony.split()[1:]) == set(TARGETS) | WITHOUT_PARAMETERS


@pytest.mark.parametrize("target", TARGETS)
def test_no_target_runs_what_is_in_its_parameters(project: Path, target: str) -> None:
    value = """`touch ran`$(shell${IFS}touch${IFS}ran)$(touch${IFS}ran)${HOME}cash$money'";touch${IFS}ran;#\\日本"""
    value = value.replace("`touch ran`", "`touch${IFS}ran`")  # no blank, which would end an item of a list
    parameters = every_parameter(target, value) | ({"PYTHON": "`touch ran`$(shell touch ran)"})
    assert make(project, target, as_given(parameters)) == expected(target, parameters)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("by_environment", [False, True], ids=["command line", "environment"])
def test_a_hostile_name_arrives_as_it_is(project: Path, name: str, by_environment: bool) -> None:
    parameters = {"PHOTO": HOSTILE[name], "OUT": f"out/{HOSTILE[name]}", "ARGS": shlex.quote(HOSTILE[name])}
    words = make(project, "enhance", parameters, by_environment)
    assert words == ["enhance", HOSTILE[name], "--", HOSTILE[name], f"out/{HOSTILE[name]}"]


def test_a_parameter_that_no_target_knows_runs_nothing_either(project: Path) -> None:
    parameters = {"PHOTO": "a.jpg", "OUT": "b.jpg", "ARG": "$(shell touch ran)`touch ran`"}
    assert make(project, "enhance", parameters) == ["enhance", "--", "a.jpg", "b.jpg"]


def test_lists_and_quoted_words_mean_what_they_did(project: Path) -> None:
    settings = 'a.b=1 reinforce.note="x" c=[1,2]'
    words = make(project, "pipeline", {"SET": settings, "ARGS": """--k "two words" 'and three words' --l=a\\ b"""})
    assert words[3:] == [
        *["--set=a.b=1", '--set=reinforce.note="x"', "--set=c=[1,2]"],
        *["--k", "two words", "and three words", "--l=a b"],
    ]
    assert make(project, "tables", {"VERSIONS": "enhance=champion other=2"})[-2:] == [
        "--version=enhance=champion",
        "--version=other=2",
    ]


def test_what_is_not_given_is_left_out_or_has_its_default(project: Path) -> None:
    assert make(project, "rollback", {}) == ["rollback", "--stack=local"]
    assert make(project, "plan", {}) == ["plan", "--config=configs/gpu.yaml"]
    assert make(project, "pipeline", {})[1:] == ["--config=configs/local.yaml", "--stack=local"]


@pytest.mark.parametrize("part", ["ruff", "lint-imports", "mypy", "python", ""])
def test_check_fails_where_one_of_its_parts_does(project: Path, tmp_path: Path, part: str) -> None:
    folder = tmp_path / "checked"
    shutil.copytree(project, folder)
    for name in ("ruff", "lint-imports", "mypy", "python"):
        program = folder / ".venv" / "bin" / name
        program.write_text(f"#!/bin/sh\necho {name} ran\nexit {int(name == part)}\n")
        program.chmod(0o755)
    done = subprocess.run(["make", "check"], cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert bool(done.returncode) == bool(part), done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said[-1] == ("mypy ran" if part in ("mypy", "python", "") else f"{part} ran"), "types are told at the end"


def test_a_quotation_without_an_end_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"ARGS=--name it's: No closing quotation"):
        filled(["{ARGS:words}"], {"ARGS": "--name it's"})


MAKER = """#!/bin/sh
# Stands for a Python: makes an environment whose python has a pip, or breaks off where `broken` is.
echo "$*" >> made
mkdir -p .venv/bin
echo "command = /usr/bin/python3.11 -m venv $PWD/.venv" > .venv/pyvenv.cfg
printf '#!/bin/sh\\nexit %s\\n' "$(test -e broken && echo 1 || echo 0)" > .venv/bin/python
chmod +x .venv/bin/python
test ! -e broken
"""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A clone in which nothing is installed, with a Python of its own."""
    folder = tmp_path / "clone"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("requirements.lock", "pyproject.toml"):
        (folder / name).touch()
    (folder / "maker").write_text(MAKER)
    (folder / "maker").chmod(0o755)
    return folder


def install(folder: Path) -> subprocess.CompletedProcess:
    command = ["make", ".venv/.installed", f"PYTHON={folder / 'maker'}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)


def made(folder: Path) -> int:
    return len((folder / "made").read_text().splitlines())


def test_an_environment_that_was_half_made_is_made_anew(bare: Path) -> None:
    (bare / "broken").touch()
    done = install(bare)
    assert done.returncode and "apt install python3.11-venv" in done.stderr
    assert install(bare).returncode
    (bare / "broken").unlink()
    assert install(bare).returncode == 0
    assert made(bare) == 3
    assert install(bare).returncode == 0 and made(bare) == 3


def test_a_clone_that_was_moved_makes_its_environment_anew(bare: Path) -> None:
    assert install(bare).returncode == 0
    moved = bare.rename(bare.parent / "moved")
    assert install(moved).returncode == 0 and made(moved) == 2
    assert install(moved).returncode == 0 and made(moved) == 2
    (bare.parent / "link").mkdir()
    shutil.copy(moved / "Makefile", bare.parent / "link")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy2(moved / name, bare.parent / "link")
    (bare.parent / "link" / ".venv").symlink_to(moved / ".venv")  # one environment for several work trees
    assert install(bare.parent / "link").returncode == 0 and made(moved) == 2
