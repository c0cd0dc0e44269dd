"""The registered model's code: MLflow loads this file ("models from code", nothing is unpickled) and serves the class.

It lies here and not in components/, which knows no MLflow. Bytes of a picture file go in; the enhanced photo, in the
same format, and the Critic's words come out. What is refused becomes an `MlflowException` whose error code MLflow's
scoring server answers with the HTTP status that says whose fault it is.
"""

import base64
import binascii
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_EXHAUSTED, TEMPORARILY_UNAVAILABLE
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from PIL import Image

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "photo")]),
    outputs=Schema(
        [
            ColSpec(DataType.binary, "photo"),
            ColSpec(DataType.string, "text"),
            ColSpec(DataType.string, "verdict"),
        ]
    ),
    params=ParamSchema([ParamSpec("seed", DataType.long, 0), ParamSpec("strength", DataType.double, None)]),
)

_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]+={0,2}\s*")


def input_example() -> tuple[pd.DataFrame, dict[str, Any]]:
    """A small picture and parameters as the model takes them: a JPEG of 48x32 pixels with a colour gradient."""
    rows, columns = np.mgrid[0:32, 0:48]
    pixels = np.stack([columns * 5, rows * 7, np.full_like(rows, 96)], axis=-1).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return pd.DataFrame({"photo": [stream.getvalue()]}), {"seed": 0, "strength": 1.0}


class EnhancerModel(PythonModel):
    """Critic and Artist behind MLflow's interface; the artifact ``package`` is a directory of components.registry.

    The limits of `components.serving.limits.ServingLimits` hold. Serve with other ones through the model's
    configuration, such as ``mlflow.pyfunc.load_model(uri, model_config={"max_pixels": 10_000_000})``.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Verify and load the package; see ``Enhancer.load`` for what is raised."""
        from components.inference.enhancer import Enhancer
        from components.models.compute import ComputeSettings
        from components.serving.limits import ServingLimits
        from components.serving.service import PhotoService

        limits = ServingLimits.model_validate(dict(context.model_config or {}))
        enhancer = Enhancer.load(Path(context.artifacts["package"]), placement=ComputeSettings().place())
        self._service = PhotoService(enhancer, limits)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Enhance the pictures in the column ``photo``.

        Args:
            model_input: bytes of a JPEG, PNG, TIFF, WebP or AVIF file, one per row.
            params: ``seed`` of the Artist's noise and ``strength`` from 0 to 2, by default the model's own.

        Returns:
            columns ``photo`` (bytes, same format; others become PNG), ``text`` (the Critic's words) and ``verdict``
            (the same parsed, as JSON; "null" where it is not in the grammar).

        Raises:
            MlflowException: with INVALID_PARAMETER_VALUE (HTTP 400) where a row is not a picture within the limits,
                RESOURCE_EXHAUSTED (429) where too many requests wait, TEMPORARILY_UNAVAILABLE (503) after waiting in
                vain; the message says what was expected, what was found and what to do.
        """
        from components.serving.work import Reason, Refused, Work

        options = params or {}
        codes = {
            Reason.BUSY: RESOURCE_EXHAUSTED,
            Reason.TIMED_OUT: TEMPORARILY_UNAVAILABLE,
            Reason.TOO_SLOW: TEMPORARILY_UNAVAILABLE,
        }
        work = Work(self._service.limits.timeout_seconds)
        photos = list(model_input["photo"])
        if len(photos) > self._service.limits.max_photos:
            raise MlflowException(
                f"expected at most {self._service.limits.max_photos} photos in a request, found {len(photos)}",
                INVALID_PARAMETER_VALUE,
            )
        rows = []
        for number, content in enumerate(photos):
            try:
                with self._service.admission.admitted():
                    answer = self._service.enhance(
                        _file(content), int(options.get("seed", 0)), options.get("strength"), work
                    )
            except Refused as refused:
                code = codes.get(refused.reason, INVALID_PARAMETER_VALUE)
                raise MlflowException(f"row {number}: {refused}", code) from refused
            rows.append((answer.photo, answer.text, answer.verdict))
        return pd.DataFrame(rows, columns=["photo", "text", "verdict"])


def _file(cell: bytes | str) -> bytes:
    """The bytes of a picture file, of which MLflow's server decodes the Base64 in data frames but not in ``inputs``.

    No picture format consists of the characters of Base64 (RFC 4648) alone, so that one is not taken for the other.
    """
    content = cell.encode() if isinstance(cell, str) else bytes(cell)
    try:
        return base64.b64decode(content) if _BASE64.fullmatch(content) else content
    except binascii.Error:  # text, which the service refuses with a reason
        return content


set_model(EnhancerModel())
