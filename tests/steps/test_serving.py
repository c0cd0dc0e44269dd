"""The registered model: its interface, and `mlflow models serve` really serving it with the tiny models."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from components.imaging.photo import read_photo
from components.inference import enhancer
from components.models.package import Package
from steps.registry import flavour
from steps.serving import SIGNATURE, EnhancerModel, input_example
from tests.environments import locked, make_environment
from tests.serving.stubs import VERDICT, Brightener, level, picture
from tests.tiny_models import write_tiny_package

pytestmark = pytest.mark.slow


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> EnhancerModel:
    monkeypatch.setattr(enhancer.Enhancer, "load", lambda package, placement: Brightener())
    model = EnhancerModel()
    limits = {"max_pixels": 5000, "max_photos": 2}
    model.load_context(SimpleNamespace(artifacts={"package": str(tmp_path)}, model_config=limits))
    return model


@pytest.mark.parametrize(
    ("file_format", "expected"), [("PNG", "PNG"), ("JPEG", "JPEG"), ("WEBP", "WEBP"), ("BMP", "PNG")]
)
def test_bytes_in_bytes_and_words_out(model: EnhancerModel, file_format: str, expected: str) -> None:
    answer = model.predict(None, pd.DataFrame({"photo": [picture(file_format)]}), {"seed": 3, "strength": 2.0})
    image = Image.open(io.BytesIO(answer["photo"][0]))
    assert (image.format, image.size) == (expected, (9, 6))
    assert level(answer["photo"][0]) == pytest.approx(100 + 51, abs=2)
    assert answer["text"][0] == "seed 3"
    assert VERDICT.model_validate_json(answer["verdict"][0]) == VERDICT


def test_defaults_and_a_verdict_that_does_not_parse(model: EnhancerModel) -> None:
    answer = model.predict(None, pd.DataFrame({"photo": [picture("PNG")] * 2}))
    assert list(answer.columns) == SIGNATURE.outputs.input_names()
    assert list(answer["verdict"]) == ["null", "null"]


def test_base64_that_mlflow_passes_on_is_decoded(model: EnhancerModel) -> None:
    """Its server decodes the cells of data frames, and leaves those of `inputs` as they came."""
    for content in (base64.b64encode(picture()), base64.encodebytes(picture()), base64.b64encode(picture()).decode()):
        answer = model.predict(None, pd.DataFrame({"photo": [content]}))
        assert level(answer["photo"][0]) == pytest.approx(100 + 32, abs=1)


@pytest.mark.parametrize(
    ("photos", "reason"),
    [
        ([b"not a picture"], "row 0: photo: not a picture"),
        ([picture(), picture("PNG", 100, 51)], "row 1: photo: expected at most 5000 pixels, found 100 x 51"),
        ([picture()] * 3, "expected at most 2 photos"),
    ],
)
def test_what_is_refused_is_a_bad_request(model: EnhancerModel, photos: list[bytes], reason: str) -> None:
    with pytest.raises(MlflowException) as caught:
        model.predict(None, pd.DataFrame({"photo": photos}))
    assert caught.value.get_http_status_code() == 400
    assert reason in caught.value.message


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("package")
    return write_tiny_package(folder, folder / "whole")


@pytest.fixture(scope="module")
def saved(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "saved"
    mlflow.pyfunc.save_model(folder, **flavour(package))
    return folder


@pytest.fixture(scope="module")
def server(saved: Path) -> Iterator[str]:
    """`mlflow models serve` away from this repository: the model brings its code, and asks for the packages."""
    python = make_environment(saved.parent / "environment", locked((saved / "requirements.txt").read_text()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", "mlflow", "models", "serve", "-m", str(saved), "--env-manager", "local"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"  # mlflow runs `uvicorn`
    log = (saved.parent / "server.log").open("wb")
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        cwd=saved.parent,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 600
        while True:
            try:
                if httpx.get(f"{address}/ping").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            text = Path(log.name).read_text(errors="replace")
            assert process.poll() is None and time.monotonic() < deadline, f"the server did not start:\n{text}"
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)
        log.close()


def test_the_saved_model_is_complete(saved: Path) -> None:
    described = (saved / "MLmodel").read_text()
    assert "signature" in described and "input_example.json" in described
    packages = locked((saved / "requirements.txt").read_text())
    assert {"mlflow", "torch", "torchvision", "transformers"} <= packages
    assert not packages & {"moto", "playwright", "pyiqa", "pytest", "ruff", "trl", "zenml"}
    assert "python: 3.11" in (saved / "python_env.yaml").read_text()
    assert (saved / "code" / "components" / "serving" / "service.py").is_file()
    assert not [path for path in saved.rglob("*") if path.suffix in {".pkl", ".pickle"}]
    example = json.loads((saved / "serving_input_example.json").read_text())
    (cell,) = example["dataframe_split"]["data"][0]
    assert base64.b64decode(cell) == input_example()[0]["photo"][0]


def test_mlflow_models_serve_enhances(server: str, saved: Path, package: Package, tmp_path: Path) -> None:
    """JPEG and PNG in, the same out as the enhancer gives here, with the Critic's words."""
    example = (saved / "serving_input_example.json").read_bytes()
    response = httpx.post(
        f"{server}/invocations", content=example, headers={"Content-Type": "application/json"}, timeout=60
    )
    assert response.status_code == 200, response.text
    (row,) = response.json()["predictions"]
    assert Image.open(io.BytesIO(base64.b64decode(row["photo"]))).format == "JPEG"

    content = picture("PNG", 40, 30)
    body = {"inputs": {"photo": [base64.b64encode(content).decode()]}, "params": {"seed": 5, "strength": 0.7}}
    response = httpx.post(f"{server}/invocations", json=body, timeout=60)
    assert response.status_code == 200, response.text
    (row,) = response.json()["predictions"]
    (tmp_path / "sent").write_bytes(content)
    here = enhancer.Enhancer.load(package.folder).enhance(read_photo(tmp_path / "sent"), seed=5, strength=0.7)
    served = tmp_path / "served.png"
    served.write_bytes(base64.b64decode(row["photo"]))
    assert (read_photo(served).pixels - here.photo.pixels).abs().max() <= 0.51 / 255 + 1e-6
    assert row["text"] == here.text
    assert json.loads(row["verdict"]) == (here.verdict.model_dump(mode="json") if here.verdict else None)


def test_mlflow_models_serve_says_what_is_wrong(server: str) -> None:
    body = {"inputs": {"photo": [base64.b64encode(b"not a picture").decode()]}}
    response = httpx.post(f"{server}/invocations", json=body, timeout=60)
    assert response.status_code == 400
    assert response.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "row 0: photo: not a picture" in response.json()["message"]
    assert (
        httpx.post(f"{server}/invocations", content=b"{", headers={"Content-Type": "application/json"}).status_code
        == 400
    )
    assert httpx.post(f"{server}/invocations", content=b"x", headers={"Content-Type": "text/html"}).status_code == 415
    assert httpx.get(f"{server}/ping").status_code == 200
