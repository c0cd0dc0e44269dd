"""The registry: one version for the same models however often they come, aliases, and files that are verified."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from components.models.package import Package, PackageError, Provenance, write_package
from pipelines.environment import State
from pipelines.rollback import restore
from pipelines.stack import read_stack, register
from steps import registry
from steps.publish import publish_champion
from tests.environments import locked

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def tracking(state: State, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    register(read_stack("local", state))
    mlflow.set_tracking_uri(state.tracking_uri)
    experiment = mlflow.create_experiment("registry", f"file:{tmp_path_factory.mktemp('artifacts')}")
    with mlflow.start_run(experiment_id=experiment):
        yield
    mlflow.set_tracking_uri("")


BEHAVIOUR = {"draws": 8}


def make_package(folder: Path, weights: str) -> Package:
    for part in ("base/critic", "base/artist", "critic", "artist"):
        (folder / "sources" / part).mkdir(parents=True)
        (folder / "sources" / part / "weights.safetensors").write_text(f"{part} {weights}")
    return write_package(
        folder / "package",
        base=folder / "sources" / "base",
        critic_adapter=folder / "sources" / "critic",
        artist_adapter=folder / "sources" / "artist",
        provenance=Provenance(data_revision="d", code_revision="c", pipeline_run="r"),
        model_card="# Card",
    )


def test_registration_from_first_version_to_champion(tmp_path: Path) -> None:
    assert registry.champion_version() is None
    assert publish_champion(tmp_path) is None

    first = registry.register_package(make_package(tmp_path / "first", "1"), BEHAVIOUR)
    assert first.created
    again = registry.register_package(make_package(tmp_path / "again", "1"), BEHAVIOUR)
    assert (again.version, again.created) == (first.version, False)
    other_use = registry.register_package(make_package(tmp_path / "use", "1"), {"draws": 2})
    assert other_use.created
    second = registry.register_package(make_package(tmp_path / "second", "2"), BEHAVIOUR)
    assert second.created
    assert second.version != first.version
    assert len(mlflow.MlflowClient().search_model_versions(f"name = '{registry.MODEL}'")) == 3

    registry.set_alias(registry.CHAMPION, first.version)
    registry.set_alias(registry.CHAMPION, second.version)
    assert registry.champion_version() == second.version
    folder = registry.version_package(second.version).folder
    assert (folder / "critic" / "weights.safetensors").read_text() == "critic 2"

    described = mlflow.MlflowClient().get_model_version(registry.MODEL, second.version).description
    assert described == "# Card"
    registry.set_reasons(second.version, "because", registry.version_package(second.version))
    described = mlflow.MlflowClient().get_model_version(registry.MODEL, second.version).description
    assert described == "because\n\n# Card"

    assert registry.resolve_version("champion") == registry.resolve_version(second.version) == second.version
    for unknown in ("99", "nobody"):
        with pytest.raises(ValueError, match=f"no version or alias '{unknown}'"):
            registry.resolve_version(unknown)

    model = folder.parent.parent
    assert (model / "input_example.json").is_file()
    assert not [path for path in model.rglob("*") if path.suffix in {".pkl", ".pickle"}]
    assert (model / "code" / "components" / "strict.py").is_file()
    assert {"mlflow", "torch"} <= locked((model / "requirements.txt").read_text())

    for version, weights in ((first.version, "critic 1"), (second.version, "critic 2")):
        registry.set_alias(registry.CHAMPION, version)
        published = publish_champion(tmp_path)
        assert published == (tmp_path / "champion").resolve()
        assert (tmp_path / "champion" / "critic" / "weights.safetensors").read_text() == weights

    said: list[str] = []
    assert restore(State(tmp_path), first.version, "too green", said.append)
    assert said[0].startswith(f"version {first.version} is champion again; version {second.version} will not")
    assert registry.champion_version() == first.version
    assert (tmp_path / "champion" / "critic" / "weights.safetensors").read_text() == "critic 1"
    assert restore(State(tmp_path), first.version, "", said.append)
    assert said[1] == f"version {first.version} is the champion already"

    (folder / "critic" / "weights.safetensors").write_text("evil")
    with pytest.raises(PackageError, match="altered"):
        registry.version_package(second.version)


def test_a_long_card_is_cut_where_the_registry_would_refuse_it(tmp_path: Path) -> None:
    package = make_package(tmp_path, "long")
    (package.folder / "README.md").write_text("word " * 3000)
    version = registry.register_package(make_package(tmp_path / "registered", "long"), BEHAVIOUR).version
    registry.set_reasons(version, "because", package)
    described = mlflow.MlflowClient().get_model_version(registry.MODEL, version).description
    assert len(described) <= 5000
    assert described.startswith("because") and described.endswith("README.md in the package)")


def test_a_version_that_lost_its_files_is_registered_anew(tmp_path: Path) -> None:
    lost = registry.register_package(make_package(tmp_path / "lost", "lost"), BEHAVIOUR)
    (registry.version_package(lost.version).folder / "critic" / "weights.safetensors").unlink()
    anew = registry.register_package(make_package(tmp_path / "anew", "lost"), BEHAVIOUR)
    assert anew.created and anew.version != lost.version
    registry.check_files(anew.version)
