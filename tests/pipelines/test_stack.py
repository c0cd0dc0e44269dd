"""Stacks as files: registered once, changed where the file changed, and refused where the file is wrong."""

from pathlib import Path

import pytest
from zenml.client import Client

from pipelines.environment import ROOT, State
from pipelines.stack import StackError, read_stack, register
from tests.pipelines.clusters import cluster_environment

pytestmark = pytest.mark.slow


def write(folder: Path, text: str, name: str = "other") -> Path:
    (folder / f"{name}.yaml").write_text(text)
    return folder


OTHER = """
name: other
components:
  orchestrator: {name: local, flavor: local}
  artifact_store: {name: elsewhere, flavor: local, configuration: {path: "${state}/elsewhere"}}
"""


def test_the_local_stack_keeps_everything_in_the_state_folder(state: State) -> None:
    registered = register(read_stack("local", state))
    assert Client().active_stack_model.id == registered.id
    stack = Client().active_stack
    assert Path(stack.artifact_store.path) == state.artifacts
    assert stack.experiment_tracker.get_tracking_uri() == state.tracking_uri
    assert stack.experiment_tracker.config.nested
    assert stack.model_registry is not None


def test_registering_again_changes_nothing(state: State) -> None:
    first = register(read_stack("local", state))
    second = register(read_stack("local", state))
    assert (first.id, first.updated) == (second.id, second.updated)
    assert len(Client().list_stacks(name="local")) == 1


def test_a_changed_file_changes_the_stack(state: State, tmp_path: Path) -> None:
    first = register(read_stack("other", state, write(tmp_path, OTHER)))
    moved = OTHER.replace("${state}/elsewhere", "${state}/moved")
    second = register(read_stack("other", state, write(tmp_path, moved)))
    assert first.id == second.id
    assert Path(Client().active_stack.artifact_store.path) == state.folder / "moved"
    replaced = OTHER.replace("name: elsewhere", "name: another")
    third = register(read_stack("other", state, write(tmp_path, replaced)))
    assert third.id == first.id
    assert Client().active_stack.artifact_store.name == "another"
    register(read_stack("local", state))


def test_a_component_of_another_flavor_is_not_replaced_silently(state: State, tmp_path: Path) -> None:
    register(read_stack("local", state))
    docker = OTHER.replace("{name: local, flavor: local}", "{name: local, flavor: local_docker}")
    with pytest.raises(StackError, match="give the component another name"):
        register(read_stack("other", state, write(tmp_path, docker)))
    register(read_stack("local", state))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OTHER.replace("name: other", "name: foreign"), "expected 'other' like the file"),
        (OTHER.replace("orchestrator:", "orchestra:"), r"unknown component types \['orchestra'\]"),
        (OTHER.replace("flavor: local}", "flavour: local}"), "flavour"),
        (OTHER.replace("${state}", "${home}"), "unknown placeholder 'home'"),
        ("name: [", "yaml"),
    ],
)
def test_a_wrong_file_is_refused(state: State, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StackError, match=message):
        read_stack("other", state, write(tmp_path, text))


def test_a_missing_file_lists_the_stacks_there_are(state: State) -> None:
    with pytest.raises(StackError, match=r"no stack file .*nowhere\.yaml; stacks there: .*local"):
        read_stack("nowhere", state)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "stacks").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_stacks_of_the_project_are_well_formed(state: State, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_environment(monkeypatch)
    assert read_stack(path.stem, state).name == path.stem


CLUSTER = """
name: other
variables: {SPC_TEST_PLACE: null, SPC_TEST_NAME: elsewhere}
secrets: {spc-test: {key: SPC_TEST_SECRET}}
components:
  orchestrator: {name: local, flavor: local}
  artifact_store: {name: "${SPC_TEST_NAME}", flavor: local, configuration: {path: "${SPC_TEST_PLACE}"}}
"""


def test_variables_come_from_the_environment_or_their_defaults(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, CLUSTER)
    with pytest.raises(StackError, match="set SPC_TEST_PLACE in the environment"):
        read_stack("other", state, tmp_path)
    monkeypatch.setenv("SPC_TEST_PLACE", "/there")
    store = read_stack("other", state, tmp_path).components["artifact_store"]
    assert (store.name, store.configuration) == ("elsewhere", {"path": "/there"})


def test_secrets_are_stored_once_and_follow_the_environment(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPC_TEST_PLACE", str(tmp_path / "store"))
    described = read_stack("other", state, write(tmp_path, CLUSTER))
    with pytest.raises(StackError, match="set SPC_TEST_SECRET in the environment"):
        register(described)
    for value in ("first", "second"):
        monkeypatch.setenv("SPC_TEST_SECRET", value)
        register(described)
        assert Client().get_secret("spc-test").secret_values == {"key": value}
    monkeypatch.delenv("SPC_TEST_SECRET")
    register(described)
    assert Client().get_secret("spc-test").secret_values == {"key": "second"}
    assert "second" not in (tmp_path / "other.yaml").read_text()
    register(read_stack("local", state))


@pytest.mark.parametrize(
    ("pods", "message"),
    [
        ("{a: {cpu: '1', memory: 1Gi, stages: [x]}}", "exactly one class of pods must name no stages"),
        (
            "{a: {cpu: '1', memory: 1Gi}, b: {cpu: '1', memory: 1Gi, stages: [x, x]}}",
            r"stages in more than one class of pods: \['x'\]",
        ),
        ("{a: {cpu: '1', memory: 1Gi, gpus: 1}}", "expected retries of 1 or more"),
    ],
)
def test_classes_of_pods_must_make_sense(state: State, tmp_path: Path, pods: str, message: str) -> None:
    with pytest.raises(StackError, match=message):
        read_stack("other", state, write(tmp_path, f"{OTHER}pods: {pods}\n"))
