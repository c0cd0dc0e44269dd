"""A retraining goes on from the champion's adapters only on the base models they were trained on."""

from pathlib import Path

import pytest

from steps.load_champion import BaseChanged, check_same_base


def base(folder: Path, critic: str = "critic", artist: str = "artist") -> Path:
    for model, weights in (("critic", critic), ("artist", artist)):
        (folder / model).mkdir(parents=True)
        (folder / model / "model.safetensors").write_text(weights)
    return folder


def test_equal_bases_pass_wherever_they_lie(tmp_path: Path) -> None:
    present = base(tmp_path / "data")
    (present / "lpips").mkdir()
    (present / "lpips" / "alex.safetensors").write_text("not part of a package")
    package = base(tmp_path / "package")
    check_same_base(package, present)  # raises nothing, until one byte differs
    with (package / "critic" / "model.safetensors").open("a") as file:
        file.write("!")
    with pytest.raises(BaseChanged, match="data/base/critic is not the one"):
        check_same_base(package, present)


@pytest.mark.parametrize("changed", ["critic", "artist"])
def test_another_base_is_refused_and_named(tmp_path: Path, changed: str) -> None:
    with pytest.raises(BaseChanged, match=rf"data/base/{changed} is not the one .*make pipeline"):
        check_same_base(base(tmp_path / "package"), base(tmp_path / "data", **{changed: "other"}))
