"""Configuration: every mistake is named with its place, its dotted key, what was expected and what was found."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, Field

from components.settings import Settings, SettingsError, load_settings
from components.strict import Strict
from docs.site.reference import settings_page

PROFILES = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


class Loop(Strict):
    steps: int = Field(default=10, gt=0)
    rate: float = 1e-4
    sizes: tuple[int, ...] = (64,)
    cached: bool = True


class Schema(Strict):
    train: Loop = Field(default_factory=Loop)
    name: str


def load(tmp_path: Path, text: str, *overrides: str) -> Schema:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_settings(path, overrides, Schema)


def mistakes(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, text, *overrides)
    return str(raised.value).replace(f"{tmp_path}/", "").splitlines()


def test_values_and_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, "name: a\ntrain:\n  rate: 3e-4\n  sizes: [64, 96]\n")
    assert settings == Schema(name="a", train=Loop(rate=3e-4, sizes=(64, 96)))


def test_overrides_replace_single_values(tmp_path: Path) -> None:
    settings = load(tmp_path, "name: a\n", "train.steps=3", "train.sizes=[8, 16]", "train.rate=1e-3", "name=b")
    assert settings == Schema(name="b", train=Loop(steps=3, sizes=(8, 16), rate=1e-3))


def test_an_unknown_key_names_the_one_that_was_meant(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "name: a\ntrain:\n  stepz: 3\n") == [
        "config.yaml:3: train.stepz: unknown key; did you mean steps?"
    ]


def test_an_unknown_key_without_a_likeness_lists_the_known(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "name: a\nqqq: 1\n") == ["config.yaml:2: qqq: unknown key; expected one of: name, train"]


@pytest.mark.parametrize(
    ("line", "found"),
    [("steps: three", "'three'"), ("steps: '3'", "'3'"), ("steps: 3.5", "3.5"), ("steps: true", "True")],
)
def test_a_wrong_type_names_expected_and_found(tmp_path: Path, line: str, found: str) -> None:
    assert mistakes(tmp_path, f"name: a\ntrain:\n  {line}\n") == [
        f"config.yaml:3: train.steps: expected a valid integer, found {found}"
    ]


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "train:\n  steps: 0\n  rate: .nan\n  sizes: [8, x]\n") == [
        "config.yaml:2: train.steps: expected greater than 0, found 0",
        "config.yaml:3: train.rate: expected a finite number, found nan",
        "config.yaml:4: train.sizes.1: expected a valid integer, found 'x'",
        "config.yaml: name: missing; it has no default",
    ]


def test_a_mistake_in_an_override_names_the_override(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "name: a\ntrain:\n  steps: 5\n", "train.steps=x") == [
        "--set train.steps=x: train.steps: expected a valid integer, found 'x'"
    ]
    assert mistakes(tmp_path, "name: a\n", "train.stepz=4") == [
        "--set train.stepz=4: train.stepz: unknown key; did you mean steps?"
    ]


@pytest.mark.parametrize("override", ["train.steps", "=3", "train..steps=3", "name.first=b", "name=[1"])
def test_a_malformed_override_is_refused(tmp_path: Path, override: str) -> None:
    assert mistakes(tmp_path, "name: a\n", override)[0].startswith(f"--set {override}: ")


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, "name: a\ntrain:\n  steps: 1\n  steps: 2\n")
    assert line == "config.yaml:4: train.steps: repeated; the first one is at config.yaml:3"


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "just words\n"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert mistakes(tmp_path, text)[0].startswith("config.yaml: ")


def test_a_missing_file_names_the_ones_there_are(tmp_path: Path) -> None:
    (tmp_path / "local.yaml").write_text("name: a\n")
    with pytest.raises(SettingsError, match=r"lokal\.yaml: there is no such configuration file.*local\.yaml"):
        load_settings(tmp_path / "lokal.yaml")


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_profiles_are_valid_and_survive_json(path: Path) -> None:
    settings = load_settings(path)
    assert isinstance(settings, Settings)
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings


def sections(kind: Any) -> list[type[BaseModel]]:
    """The models that an annotation holds, also inside a list or an optional one."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for argument in get_args(kind) for model in sections(argument)]


def keys(schema: type[BaseModel], above: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, what is said of it) of every value of a schema, and of every section its docstring."""
    for name, field in schema.model_fields.items():
        inner = sections(field.annotation)
        yield f"{above}{name}", (inner[0].__doc__ if inner else field.description) or ""
        for model in inner:
            yield from keys(model, f"{above}{name}.")


def test_every_setting_says_what_it_is() -> None:
    said = dict(keys(Settings))
    assert len(said) > 300
    assert not [key for key, text in said.items() if not text.strip()]


def test_the_reference_has_a_row_for_every_setting() -> None:
    page = settings_page()
    for key, _ in keys(Settings):
        section, _, name = key.rpartition(".")
        rows = page.partition(f"# `{section}`\n")[2].partition("\n#")[0]
        assert f"# `{key}`\n" in page or f"\n| `{name}` |" in rows, key


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_enhances_with_the_edit_as_the_artist_makes_it(path: Path) -> None:
    assert load_settings(path).evaluate.enhancer.strength == 1.0
