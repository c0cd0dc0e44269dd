"""A tiny random Critic, and photos of different sizes for it to look at."""

from pathlib import Path

import pytest
from torch import Tensor

from components.critic.model import Critic
from tests.conftest import make_photo
from tests.tiny_models import write_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of untrained base models, `critic/` and `artist/`."""
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def critic(base: Path) -> Critic:
    return Critic.load(base / "critic")


@pytest.fixture(scope="session")
def photos() -> list[Tensor]:
    """Three photos whose prompts differ in length."""
    return [make_photo(64, 96, seed=0), make_photo(112, 112, seed=1), make_photo(56, 60, seed=2)]
