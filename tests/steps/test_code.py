"""What a step's cache key covers: the modules it can reach, wherever and however they are imported, and no others."""

from pathlib import Path

import pytest

from steps.code import ROOT, dependencies


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, content in {
        "requirements.lock": "torch==1\n",
        "steps/work.py": "def work():\n    from components.a.model import run\n    import os\n",
        "components/__init__.py": "",
        "components/a/__init__.py": "",
        "components/a/model.py": "from components.b import loss, VALUE\nfrom . import sizes\nimport numpy\n",
        "components/a/sizes.py": "from ..shared import strict\n",
        "components/a/table.json": "{}",
        "components/a/unused.py": "import components.never\n",
        "components/b/__init__.py": "VALUE = 1\n",
        "components/b/loss.py": "import components.a.model\n",
        "components/never.py": "",
        "components/shared/strict.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_the_closure_of_imports(tree: Path) -> None:
    assert dependencies(tree / "steps" / "work.py", tree) == [
        "components/__init__.py",
        "components/a/__init__.py",
        "components/a/model.py",
        "components/a/sizes.py",
        "components/a/table.json",
        "components/b/__init__.py",
        "components/b/loss.py",
        "components/shared/strict.py",
        "requirements.lock",
        "steps/work.py",
    ]


def test_a_missing_lock_file_is_named(tree: Path) -> None:
    (tree / "requirements.lock").unlink()
    with pytest.raises(FileNotFoundError, match=r"requirements\.lock does not exist"):
        dependencies(tree / "steps" / "work.py", tree)


def test_a_file_that_is_no_python_is_an_error(tree: Path) -> None:
    (tree / "components" / "b" / "loss.py").write_text("def (:")
    with pytest.raises(SyntaxError, match="invalid syntax"):
        dependencies(tree / "steps" / "work.py", tree)


@pytest.mark.parametrize(
    ("step", "covered", "left_out"),
    [
        ("train_artist", "components/models/flow.py", "components/evaluation/report.py"),
        ("train_critic", "components/verdict/grammar.py", "components/models/flow.py"),
        ("synthesize", "components/photometry/bokeh.py", "components/models/critic.py"),
        ("reinforce", "components/reinforcement/nft.py", "components/evaluation/report.py"),
        ("promote", "components/registry/promotion.py", "components/reinforcement/coordinated.py"),
    ],
)
def test_steps_depend_on_their_components_and_not_on_others(step: str, covered: str, left_out: str) -> None:
    files = dependencies(ROOT / "steps" / f"{step}.py")
    assert {covered, f"steps/{step}.py", "components/strict.py", "requirements.lock"} <= set(files)
    assert left_out not in files
