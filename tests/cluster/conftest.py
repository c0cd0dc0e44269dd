"""The emulated cluster for the tests that need no pods, and the site of those that run whole pipelines."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipelines.environment import ROOT
from tests.cluster.emulated import EmulatedCluster
from tests.cluster.site import REAL, Site, Trained, open_site, train
from tests.isolation import isolate

isolate()  # the tests import what imports ZenML


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmulatedCluster]:
    """The API with nothing but nodes, the namespace, and the accounts, roles and claims of deploy/base."""
    emulated = EmulatedCluster(tmp_path / "cluster")
    for name in ("access", "limits", "storage"):
        emulated.apply(*yaml.safe_load_all((ROOT / "deploy" / "base" / f"{name}.yaml").read_text()))
    yield emulated
    emulated.stop()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The cluster that `make test-cluster` runs pipelines on, one for all of them."""
    if "SPC_TEST_CONTEXT" not in os.environ:
        pytest.skip("slow: `make test-cluster` runs it")
    if not REAL and (os.geteuid() != 0 or shutil.which("unshare") is None):
        pytest.skip("the emulated cluster needs root and unshare; CONTEXT= names a real one")
    if not REAL and Path(sys.prefix).is_relative_to("/tmp"):
        pytest.fail(f"emulated pods have a /tmp of their own and would miss {sys.prefix}: clone this to another folder")
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))  # so that all is stopped
    with open_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


@pytest.fixture(scope="session")
def trained(site: Site) -> Trained:
    """The training pipeline, run to its end; in between, the node of stage III is drained."""
    return train(site)
