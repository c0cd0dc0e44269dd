"""Learned measures: availability that is said, distances against independent formulas, real code paths offline."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from components.metrics import learned
from components.metrics.full_reference import psnr
from components.metrics.learned import (
    LEARNED,
    ClipSimilarity,
    InceptionFeatures,
    PyiqaMeasure,
    frechet_distance,
    tensors_only,
    unavailable,
)
from pipelines.__main__ import main


def test_what_is_not_here_says_what_is_missing_and_how_to_get_it(no_weights: Path) -> None:
    for name in LEARNED:
        gap = unavailable(name)
        assert gap is not None and gap.name == name and gap.missing
        assert gap.command == f".venv/bin/smartphotocrafter fetch measures {name}"
    assert unavailable("dists").missing == ("vgg16-397923af.pth", "DISTS_weights-f5e65c96.pth")


def test_fetching_names_what_is_still_missing(
    no_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # which fetching changes
    monkeypatch.setattr(learned, "PyiqaMeasure", offline)
    monkeypatch.setattr(learned, "InceptionFeatures", offline)
    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    assert main(["fetch", "measures"]) == 1
    said = capsys.readouterr()
    for name in LEARNED:
        assert f"{name}: still missing: " in said.out and f"{name}: no network" in said.err
    assert main(["fetch", "measures", "fid"]) == 1
    assert "musiq" not in capsys.readouterr().out
    assert main(["fetch", "measures", "fid", "magic"]) == 2
    assert "unknown measures magic" in capsys.readouterr().err


def test_what_is_here_is_available(no_weights: Path) -> None:
    (no_weights / "pyiqa").mkdir()
    for file in LEARNED["fid"].weights().values():
        file.write_bytes(b"weights")
    assert unavailable("fid") is None
    assert unavailable("musiq") is not None


def test_pyiqa_measures_with_and_without_a_reference(photo: Tensor) -> None:
    """Two that need no weights: PSNR against ours, and the entropy of the grey levels against its definition."""
    noisy = (photo + 0.05 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert PyiqaMeasure("psnr")(noisy, photo) == pytest.approx(psnr(noisy, photo), abs=0.05)
    flat = torch.full((3, 64, 64), 0.5)
    assert PyiqaMeasure("entropy")(flat, photo) == pytest.approx(0, abs=1e-3)
    assert PyiqaMeasure("entropy")(photo, flat) > 3


def test_nothing_but_tensors_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    torch.save({"weights": Evil()}, tmp_path / "evil.pth")
    with tensors_only(), pytest.raises(Exception, match=r"weights_only|Weights only"):
        torch.load(tmp_path / "evil.pth", weights_only=False)
    assert not (tmp_path / "pwned").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 32},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_clip_similarity_is_the_cosine_of_the_embeddings(clip_model: Path, photo: Tensor) -> None:
    similarity = ClipSimilarity(clip_model)
    assert similarity(photo, photo) == pytest.approx(1)
    model = CLIPModel.from_pretrained(clip_model).eval()
    processor = CLIPImageProcessor.from_pretrained(clip_model)
    other = photo.flip(-1) * 0.5
    arrays = [(x * 255).round().byte().permute(1, 2, 0).numpy() for x in (photo, other)]
    with torch.no_grad():
        states = model.vision_model(**processor(arrays, return_tensors="pt")).pooler_output
    a, b = model.visual_projection(states).detach().double().numpy()
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert similarity(photo, other) == pytest.approx(expected, abs=1e-5)
    assert expected < 0.9999


def test_frechet_distance_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(40, 6)), rng.normal(0.3, 2, size=(25, 6)) @ rng.normal(size=(6, 6))
    c, d = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    expected = ((ours.mean(0) - theirs.mean(0)) ** 2).sum() + np.trace(c + d - 2 * sqrtm(c @ d).real)
    assert frechet_distance(ours, theirs) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(ours[:1], theirs)


@pytest.mark.slow
def test_inception_features_are_those_of_clean_fid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Tensor
) -> None:
    """Random weights in the place of the published ones, loaded by pyiqa's own code from its own cache."""
    from PIL import Image
    from pyiqa.archs import inception
    from pyiqa.archs.fid_arch import get_folder_features
    from pyiqa.utils import download_util

    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path))
    kept: dict[str, dict] = {}
    monkeypatch.setattr(inception, "load_pretrained_network", lambda net, url: kept.setdefault(url, net.state_dict()))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inception.InceptionV3([3])
    monkeypatch.undo()
    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path))
    (state,) = kept.values()
    torch.save(state, tmp_path / inception.FID_WEIGHTS_URL.rsplit("/", 1)[1])

    features = InceptionFeatures()
    found = features(photo)
    (tmp_path / "photos").mkdir()
    Image.fromarray(learned.to_bytes(photo)).save(tmp_path / "photos" / "photo.png")
    expected = get_folder_features(
        str(tmp_path / "photos"), features.model, num_workers=0, device=torch.device("cpu"), verbose=False
    )
    assert found.shape == (2048,)
    np.testing.assert_allclose(found, expected[0], rtol=1e-4, atol=1e-5)
