"""Exported adapters through the loaders of PEFT and diffusers, as the release's infer.py uses them, and back."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from components.models.artist import Artist
from components.models.critic import Critic
from components.models.published import read_configurations
from components.release.adapters import (
    export_artist_adapter,
    export_critic_adapter,
    import_artist_adapter,
    import_critic_adapter,
)
from components.release.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS, DIFFUSERS_WEIGHTS, ReleaseError

pytestmark = pytest.mark.slow

RELEASED = ["add_k_proj", "add_q_proj", "add_v_proj", "to_add_out", "to_k", "to_out.0", "to_q", "to_v"]


def velocity(transformer: torch.nn.Module) -> Tensor:
    """What a tiny transformer answers to fixed input."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return transformer(
            hidden_states=torch.randn(1, 24, 32, generator=generator),
            encoder_hidden_states=torch.randn(1, 9, 32, generator=generator),
            timestep=torch.tensor([0.7]),
            img_shapes=[[(1, 3, 4), (1, 3, 4)]],
            return_dict=False,
        )[0]


def scores(model: torch.nn.Module) -> Tensor:
    """What a tiny language model answers to fixed tokens."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([[3, 9, 27, 81, 11]])).logits


@pytest.fixture
def exported(base: Path, adapters: Path, tmp_path: Path) -> Path:
    configurations = read_configurations(base)
    export_artist_adapter(adapters / "artist", tmp_path / "dit_lora", configurations, diffusers=True)
    export_critic_adapter(adapters / "critic", tmp_path / "vlm_lora", configurations)
    return tmp_path


def test_the_release_loads_the_artists_adapter(base: Path, adapters: Path, exported: Path) -> None:
    trained = velocity(Artist.load(base / "artist", adapters / "artist").transformer)
    plain = QwenImageTransformer2DModel.from_pretrained(base / "artist", subfolder="transformer").float()
    untrained = velocity(plain)
    config = LoraConfig(
        r=32, lora_alpha=64, init_lora_weights="gaussian", target_modules=[f"attn.{name}" for name in RELEASED]
    )
    theirs = get_peft_model(plain, config)
    result = theirs.load_adapter(str(exported / "dit_lora"), adapter_name="default", is_trainable=False)
    theirs.set_adapter("default")
    assert not result.unexpected_keys and not result.missing_keys
    assert (trained - untrained).abs().max() > 0.05
    torch.testing.assert_close(velocity(theirs), trained, rtol=1e-5, atol=1e-5)
    theirs_own = {name for name, _ in theirs.named_parameters() if "lora_" in name}
    shapes = {name: tensor.shape for name, tensor in load_file(exported / "dit_lora" / ADAPTER_WEIGHTS).items()}
    assert set(shapes) == {name.replace(".default.", ".") for name in theirs_own}
    assert {shape[0] for name, shape in shapes.items() if "lora_A" in name} == {32}
    assert {shape[1] for name, shape in shapes.items() if "lora_B" in name} == {32}
    written = json.loads((exported / "dit_lora" / ADAPTER_CONFIG).read_text())
    assert (written["r"], written["lora_alpha"]) == (32, 64)
    assert written["target_modules"] == [f"attn.{name}" for name in RELEASED]


def test_diffusers_loads_the_artists_adapter(base: Path, adapters: Path, exported: Path) -> None:
    model = QwenImageTransformer2DModel.from_pretrained(base / "artist", subfolder="transformer").float()
    model.load_lora_adapter(exported / "dit_lora", weight_name=DIFFUSERS_WEIGHTS, prefix="transformer")
    trained = velocity(Artist.load(base / "artist", adapters / "artist").transformer)
    torch.testing.assert_close(velocity(model), trained, rtol=1e-5, atol=1e-5)


def test_the_release_loads_the_critics_adapter(base: Path, adapters: Path, exported: Path) -> None:
    trained = scores(Critic.load(base / "critic", adapters / "critic").model)
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(base / "critic", dtype=torch.float32)
    assert (scores(plain) - trained).abs().max() > 0.01
    torch.testing.assert_close(scores(PeftModel.from_pretrained(plain, exported / "vlm_lora")), trained)


def test_there_and_back(base: Path, adapters: Path, exported: Path, tmp_path: Path) -> None:
    configurations = read_configurations(base)
    import_artist_adapter(exported / "dit_lora", tmp_path / "artist", configurations)
    import_critic_adapter(exported / "vlm_lora", tmp_path / "critic", configurations)
    ours = Artist.load(base / "artist", tmp_path / "artist", trainable=True).transformer
    trained = Artist.load(base / "artist", adapters / "artist").transformer
    torch.testing.assert_close(velocity(ours), velocity(trained), rtol=1e-5, atol=1e-5)
    assert {name for name, p in ours.named_parameters() if p.requires_grad} == {
        name for name, _ in trained.named_parameters() if "lora_" in name
    }
    critic, before = (Critic.load(base / "critic", folder / "critic").model for folder in (tmp_path, adapters))
    assert torch.equal(scores(critic), scores(before))


def test_names_of_older_versions_are_renewed(base: Path, adapters: Path, exported: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(exported / "vlm_lora", old)
    tensors = load_file(old / ADAPTER_WEIGHTS)
    renamed = {
        name.replace("model.model.language_model.layers", "model.model.layers"): t for name, t in tensors.items()
    }
    assert renamed.keys() != tensors.keys()
    save_file(renamed, old / ADAPTER_WEIGHTS)
    import_critic_adapter(old, tmp_path / "new", read_configurations(base))
    assert load_file(tmp_path / "new" / ADAPTER_WEIGHTS).keys() == tensors.keys()
    trained = scores(Critic.load(base / "critic", adapters / "critic").model)
    assert torch.equal(scores(Critic.load(base / "critic", tmp_path / "new").model), trained)


def test_the_transformers_alpha_is_64_whatever_the_file_says(
    base: Path, exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = exported / "dit_lora" / ADAPTER_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 16}))
    import_artist_adapter(exported / "dit_lora", tmp_path / "artist", read_configurations(base))
    assert json.loads((tmp_path / "artist" / ADAPTER_CONFIG).read_text())["lora_alpha"] == 64
    assert "alpha 16" in caplog.text


def test_what_cannot_be_taken_says_why(base: Path, adapters: Path, tmp_path: Path) -> None:
    configurations, out = read_configurations(base), tmp_path / "out"

    def changed(name: str, config: dict | None = None, tensors=None) -> Path:
        folder = tmp_path / name
        shutil.copytree(adapters / "artist", folder)
        stated = json.loads((folder / ADAPTER_CONFIG).read_text())
        (folder / ADAPTER_CONFIG).write_text(json.dumps(stated | (config or {})))
        if tensors is not None:
            save_file(tensors(load_file(folder / ADAPTER_WEIGHTS)), folder / ADAPTER_WEIGHTS)
        return folder

    def wide(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: t.repeat(*((5, 1) if "lora_A" in n else (1, 5))) for n, t in tensors.items()}

    def without_one(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in tensors.items() if "add_q_proj" not in name}

    cases = {
        "rank 40, the release's loader reads rank 32": changed("wide", {"r": 40}, wide),
        "rank 8, expected 4": changed("other", {"r": 4}),
        "use_dora": changed("dora", {"use_dora": True}),
        "add_q_proj is missing": changed("part", tensors=without_one),
        "found README.md": changed("pickled"),
    }
    (tmp_path / "pickled" / ADAPTER_WEIGHTS).unlink()
    (tmp_path / "pickled" / ADAPTER_CONFIG).unlink()
    (tmp_path / "pickled" / "README.md").write_text("nothing else")
    for message, folder in cases.items():
        with pytest.raises(ReleaseError, match=message):
            export_artist_adapter(folder, out, configurations)
    with pytest.raises(ReleaseError, match="is unknown"):
        export_critic_adapter(adapters / "artist", out, configurations)
