"""An emulated cluster with the rights of deploy/, for the tests that need no pods."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipelines.environment import ROOT
from tests.cluster.emulated import EmulatedCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmulatedCluster]:
    """The API with nothing but nodes, the namespace, and the accounts, roles and claims of deploy/base."""
    emulated = EmulatedCluster(tmp_path / "cluster")
    for name in ("access", "limits", "storage"):
        emulated.apply(*yaml.safe_load_all((ROOT / "deploy" / "base" / f"{name}.yaml").read_text()))
    yield emulated
    emulated.stop()
