"""Load champion: the adapters of the model in service, from the registry, for a retraining to go on from."""

import shutil
from pathlib import Path
from typing import Annotated

from steps import registry
from steps.directories import content_hash
from steps.folders import output_folder
from steps.stage import stage
from steps.tracking import tracked


class BaseChanged(ValueError):  # noqa: N818  reads as a sentence where it is raised
    """The champion's adapters belong to other base models than those under data/base."""


@stage
def load_champion(
    version: str, data_revision: str
) -> tuple[Annotated[Path, "champion_critic_adapter"], Annotated[Path, "champion_artist_adapter"]]:
    """The Critic's and the Artist's PEFT adapters of a registered version, its files verified.

    Raises:
        BaseChanged: the base models have been replaced since; adapters do not carry over.
    """
    from steps.lineage import data_folder

    with tracked({"version": version}):
        package = registry.version_package(version)
        check_same_base(package.base, data_folder(data_revision) / "base")
        out = output_folder()
        shutil.copytree(package.critic_adapter, out / "critic")
        shutil.copytree(package.artist_adapter, out / "artist")
        return out / "critic", out / "artist"


def check_same_base(trained_on: Path, present: Path) -> None:
    """Compare the base models of a package with those of the data, byte for byte.

    Raises:
        BaseChanged: they differ.
    """
    for model in ("critic", "artist"):
        if content_hash(trained_on / model) != content_hash(present / model):
            raise BaseChanged(
                f"the base model data/base/{model} is not the one the champion was trained on, and adapters do not "
                f"carry over: run `make pipeline` to train on the new base from stage I"
            )
