"""What a step's cache key covers: the modules it can reach, wherever and however they are imported, and no others."""

from pathlib import Path

import pytest

from steps.code import LIBRARY, ROOT, WITHOUT_EFFECT, data_files, dependencies


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, content in {
        "requirements.lock": "torch==1\n",
        "steps/work.py": "def work():\n    from components.a.model import run\n    import os\n",
        "components/__init__.py": '"""Says what it is for and does nothing."""\n',
        "components/a/__init__.py": "",
        "components/a/model.py": "from components.b import loss, VALUE\nfrom . import sizes\nimport numpy\n",
        "components/a/sizes.py": "from ..shared import strict\nTABLE = 'table.json'\nFOLDER = 'tables'\n",
        "components/a/table.json": "{}",
        "components/a/tables/deep/one.csv": "1",
        "components/a/page.html": "{% import 'part.html' %}",
        "components/a/part.html": "",
        "components/a/draw.py": "PAGE = 'page.html'\n",
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
        "components/a/model.py",
        "components/a/sizes.py",
        "components/a/table.json",
        "components/a/tables/deep/one.csv",
        "components/b/__init__.py",
        "components/b/loss.py",
        "components/shared/strict.py",
        "requirements.lock",
        "steps/work.py",
    ]


def test_a_data_file_belongs_to_the_module_that_names_it(tree: Path) -> None:
    """And what one data file includes of the others with it: a report's template belongs to the report alone."""
    (tree / "steps" / "draw.py").write_text("import components.a.draw\n")
    drawn = {"components/a/draw.py", "components/a/page.html", "components/a/part.html"}
    assert drawn <= set(dependencies(tree / "steps" / "draw.py", tree))
    assert not drawn & set(dependencies(tree / "steps" / "work.py", tree))
    assert "components/a/table.json" not in dependencies(tree / "steps" / "draw.py", tree)


def test_modules_that_are_found_by_name_belong_to_whoever_finds_them(tree: Path) -> None:
    finding = "import importlib\ndef find(name):\n    return importlib.import_module(f'{__package__}.{name}')\n"
    (tree / "components" / "b" / "registry.py").write_text(finding)
    (tree / "steps" / "find.py").write_text("from components.b.registry import find\n")
    found = dependencies(tree / "steps" / "find.py", tree)
    assert {"components/b/loss.py", "components/a/model.py", "components/shared/strict.py"} <= set(found)


@pytest.mark.parametrize("argument", ["name", "f'components.{name}'", "'components.' + name"])
def test_a_dynamic_import_that_cannot_be_followed_is_an_error(tree: Path, argument: str) -> None:
    """Rather than a key from which something is missing."""
    (tree / "components" / "b" / "loss.py").write_text(
        f"from importlib import import_module\nimport_module({argument})\n"
    )
    with pytest.raises(ValueError, match=r"components/b/loss\.py, line 2: .*import_module"):
        dependencies(tree / "steps" / "work.py", tree)


def test_a_dynamic_import_of_something_else_is_the_lock_files_business(tree: Path) -> None:
    (tree / "components" / "b" / "loss.py").write_text("import importlib\nimportlib.import_module(f'pyiqa.{1}')\n")
    assert "components/b/loss.py" in dependencies(tree / "steps" / "work.py", tree)


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
        ("ingest", "components/data/sources/koniq10k.py", "components/models/critic.py"),
        ("reinforce", "components/reinforcement/rewards/critic.py", "components/evaluation/report.html.j2"),
        ("evaluate", "components/evaluation/plots.html.j2", "components/demo/page.html"),
        ("train_critic", "components/photometry/operations.py", "components/planning/gpus.py"),
        ("train_critic", "components/annotation/records.py", "components/annotation/client.py"),
        ("train_artist", "components/training/loop.py", "components/planning/gpus.py"),
        ("reinforce", "components/training/loop.py", "components/training/__main__.py"),
    ],
)
def test_steps_depend_on_their_components_and_not_on_others(step: str, covered: str, left_out: str) -> None:
    files = dependencies(ROOT / "steps" / f"{step}.py")
    assert {covered, f"steps/{step}.py", "components/strict.py", "requirements.lock"} <= set(files)
    assert left_out not in files


LEARNING = ("train_critic", "train_artist", "adapt_artist", "reinforce")


def test_the_critics_key_holds_little() -> None:
    assert len(dependencies(ROOT / "steps" / "train_critic.py")) <= 45


@pytest.mark.parametrize("step", LEARNING)
def test_what_cannot_change_what_is_learnt_is_in_no_stages_key(step: str) -> None:
    files = dependencies(ROOT / "steps" / f"{step}.py")
    packages = ("planning", "evaluation", "registry", "serving", "demo", "release")
    assert not [file for file in files if file.startswith(tuple(f"components/{package}/" for package in packages))]
    assert not set(files) & {f"{module.replace('.', '/')}.py" for module in WITHOUT_EFFECT}


def test_what_has_no_effect_exists() -> None:
    assert all((ROOT / f"{module.replace('.', '/')}.py").is_file() for module in WITHOUT_EFFECT)


def test_every_data_file_is_named_by_a_module_beside_it() -> None:
    """Otherwise it belongs to no key, and whoever edits it gets what was made before."""
    named = {file for module in (ROOT / LIBRARY).rglob("*.py") for file in data_files(module)}
    others = (path for path in (ROOT / LIBRARY).rglob("*") if path.is_file() and path.suffix != ".py")
    beside = (path for path in others if path.parent.name != "__pycache__" and path.name != "README.md")
    assert [path for path in beside if path not in named] == []
