"""Packages: what is written is what is read, and whatever is altered, missing or added is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from components.models.package import PackageError, Provenance, read_package, write_package

PROVENANCE = Provenance(data_revision="d" * 32, code_revision="c" * 40, pipeline_run="training-1")


def make_folder(folder: Path, **contents: str) -> Path:
    for name, content in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    base = make_folder(
        tmp_path / "sources" / "base",
        critic__config="c",
        artist__transformer__weights="a",
        MODEL_CARD="not taken along",
    )
    return {
        "base": base,
        "critic_adapter": make_folder(tmp_path / "sources" / "critic", adapter_model="critic weights"),
        "artist_adapter": make_folder(tmp_path / "sources" / "artist", adapter_model="artist weights"),
    }


def write(out: Path, parts: dict[str, Path], **more: object):
    return write_package(out, **parts, provenance=PROVENANCE, model_card="# Card", **more)


def test_what_is_written_is_read(tmp_path: Path, parts: dict[str, Path]) -> None:
    evaluation = make_folder(tmp_path / "evaluation", cases="1")
    written = write(tmp_path / "package", parts, evaluation=evaluation)
    package = read_package(tmp_path / "package")
    assert package == written
    assert package.manifest.provenance == PROVENANCE
    assert (package.base / "critic" / "config").read_text() == "c"
    assert (package.base / "artist" / "transformer" / "weights").read_text() == "a"
    assert (package.critic_adapter / "adapter_model").read_text() == "critic weights"
    assert (package.artist_adapter / "adapter_model").read_text() == "artist weights"
    assert (package.evaluation / "cases").read_text() == "1"
    assert (package.folder / "README.md").read_text() == "# Card"
    assert not (package.base / "MODEL_CARD").exists()


def test_the_fingerprint_is_that_of_the_models_alone(tmp_path: Path, parts: dict[str, Path]) -> None:
    first = write(tmp_path / "first", parts)
    evaluation = make_folder(tmp_path / "evaluation", cases="1")
    second = write_package(
        tmp_path / "second",
        **parts,
        provenance=PROVENANCE.model_copy(update={"pipeline_run": "another"}),
        model_card="other words",
        evaluation=evaluation,
    )
    assert first.manifest.fingerprint == second.manifest.fingerprint
    (parts["critic_adapter"] / "adapter_model").write_text("other weights")
    assert write(tmp_path / "third", parts).manifest.fingerprint != first.manifest.fingerprint


def _alter(folder: Path) -> None:
    (folder / "critic" / "adapter_model").write_text("evil weights!!")


def _remove(folder: Path) -> None:
    (folder / "critic" / "adapter_model").unlink()


def _add(folder: Path) -> None:
    (folder / "critic" / "extra").write_text("?")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_alter, "critic/adapter_model is altered"),
        (_remove, "critic/adapter_model is missing"),
        (_add, "critic/extra does not belong"),
    ],
)
def test_damage_is_named(tmp_path: Path, parts: dict[str, Path], damage: Callable[[Path], None], message: str) -> None:
    write(tmp_path / "package", parts)
    damage(tmp_path / "package")
    with pytest.raises(PackageError, match=message):
        read_package(tmp_path / "package")


@pytest.mark.parametrize("name", ["adapter_model.bin", "optimizer.pt", "model.pkl", "training_args.pth"])
def test_pickles_are_refused(tmp_path: Path, parts: dict[str, Path], name: str) -> None:
    (parts["artist_adapter"] / name).write_bytes(b"\x80\x04.")
    with pytest.raises(PackageError, match="unpickled"):
        write(tmp_path / "package", parts)


def test_links_are_refused(tmp_path: Path, parts: dict[str, Path]) -> None:
    (parts["artist_adapter"] / "weights").symlink_to("/etc/hostname")
    with pytest.raises(PackageError, match="symbolic link"):
        write(tmp_path / "package", parts)


def test_a_missing_or_empty_part_is_named(tmp_path: Path, parts: dict[str, Path]) -> None:
    (tmp_path / "empty").mkdir()
    for adapter in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(PackageError, match=f"{adapter.name}: expected the directory that becomes critic"):
            write(tmp_path / f"package-{adapter.name}", parts | {"critic_adapter": adapter})


def test_an_occupied_folder_is_left_alone(tmp_path: Path, parts: dict[str, Path]) -> None:
    make_folder(tmp_path / "package", mine="mine")
    with pytest.raises(FileExistsError):
        write(tmp_path / "package", parts)
    assert (tmp_path / "package" / "mine").read_text() == "mine"


@pytest.mark.parametrize("content", [None, "", "{}", '{"format": 2}', "\x00"])
def test_what_is_no_package_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "package.json").write_text(content)
    with pytest.raises(PackageError, match="package"):
        read_package(tmp_path)
