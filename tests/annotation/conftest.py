"""The photos and the manifest of tests/data, for what annotates them."""

from tests.data.conftest import manifest, photos_dir

__all__ = ["manifest", "photos_dir"]
