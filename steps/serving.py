"""The registered model's code: MLflow loads this file ("models from code", nothing is unpickled) and serves the class.

It lies here and not in components/, which knows no MLflow. Bytes of a picture file go in; the enhanced photo, in the
same format, and the Critic's words come out.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "photo")]),
    outputs=Schema(
        [
            ColSpec(DataType.binary, "photo"),
            ColSpec(DataType.string, "text"),
            ColSpec(DataType.string, "verdict"),
        ]
    ),
    params=ParamSchema([ParamSpec("seed", DataType.long, 0), ParamSpec("strength", DataType.double, 1.0)]),
)
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "AVIF": ".avif"}


class CrafterModel(PythonModel):
    """Critic and Artist behind MLflow's interface; the artifact ``package`` is a directory of components.registry."""

    def load_context(self, context: PythonModelContext) -> None:
        """Verify and load the package; see ``Crafter.load`` for what is raised."""
        from components.enhance.crafter import Crafter

        self._crafter = Crafter.load(Path(context.artifacts["package"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Enhance the pictures in the column ``photo``.

        Args:
            model_input: bytes of a JPEG, PNG, TIFF, WebP or AVIF file a row.
            params: ``seed`` of the Artist's noise and ``strength`` from 0 to 2.

        Returns:
            columns ``photo`` (bytes, same format; others become PNG), ``text`` (the Critic's words) and ``verdict``
            (the same parsed, as JSON; "null" where it is not in the grammar).

        Raises:
            components.images.UnreadablePhoto: a row is not a picture that can be read.
        """
        options = params or {}
        rows = [
            self._enhance(bytes(content), int(options.get("seed", 0)), float(options.get("strength", 1.0)))
            for content in model_input["photo"]
        ]
        return pd.DataFrame(rows, columns=["photo", "text", "verdict"])

    def _enhance(self, content: bytes, seed: int, strength: float) -> tuple[bytes, str, str]:
        from components.images import read_photo, write_photo

        with tempfile.TemporaryDirectory(prefix="spc-") as folder:
            source = Path(folder) / "photo"
            source.write_bytes(content)
            photo = read_photo(source)
            result = self._crafter.enhance(photo, seed=seed, strength=strength)
            target = source.with_suffix(_SUFFIXES.get(photo.format, ".png"))
            write_photo(result.photo, target)
            verdict = json.dumps(result.verdict.model_dump(mode="json") if result.verdict else None)
            return target.read_bytes(), result.text, verdict


set_model(CrafterModel())
