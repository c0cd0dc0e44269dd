"""The photos and the manifest of tests/data, which annotation starts from."""

from tests.data.conftest import manifest, photos_dir

__all__ = ["manifest", "photos_dir"]
