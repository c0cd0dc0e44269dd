"""Whole releases, written and read again; and the command line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from components.models.artist import Artist
from components.models.critic import Critic
from components.models.weights import WEIGHTS_FILE
from components.release.folders import export_release, import_release
from components.release.layout import ReleaseError, fingerprint, stored_shapes
from pipelines.__main__ import main


@pytest.fixture(scope="module")
def release(base: Path, adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "out"
    export_release(out, base, adapters / "critic", adapters / "artist")
    return out


def test_a_release_holds_what_infer_py_asks_for(release: Path, base: Path) -> None:
    transformer = load_file(release / "dit.safetensors")
    original = load_file(base / "artist" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert transformer.keys() == original.keys()
    assert all(torch.equal(transformer[name], original[name]) for name in original)
    assert (release / "vae" / "diffusion_pytorch_model.safetensors").is_file()
    assert {path.name for path in (release / "dit_lora").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_the_critics_folder_can_be_read_by_transformers_4(release: Path, base: Path) -> None:
    folder = release / "vlm"
    text = json.loads((folder / "config.json").read_text())["text_config"]
    assert text["rope_theta"] == text["rope_parameters"]["rope_theta"]
    assert text["rope_scaling"]["mrope_section"] == [2, 3, 3]
    images = json.loads((folder / "preprocessor_config.json").read_text())
    assert images["min_pixels"] == 56 * 56 and images["patch_size"] == 14
    bpe = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    whole = Tokenizer.from_file(str(base / "critic" / "tokenizer.json"))
    for word in ("exposure", "contrast", "assistant"):
        assert bpe.encode(word).ids == whole.encode(word).ids
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    assert "extra_special_tokens" not in tokens, "a mapping there, and a list in transformers 5"
    assert "<|vision_start|>" in tokens["additional_special_tokens"]
    assert tokens["eos_token"] == "<|im_end|>", "else the release's script never stops"
    decoding = json.loads((folder / "generation_config.json").read_text())
    assert decoding["repetition_penalty"] == 1.0 and decoding["eos_token_id"] is not None
    original = json.loads((base / "critic" / "tokenizer_config.json").read_text())
    assert "additional_special_tokens" not in original, "the base model's own folder is left alone"


def test_an_import_can_be_loaded(release: Path, base: Path, adapters: Path, tmp_path: Path) -> None:
    written = import_release(release, tmp_path / "in", models=base)
    assert [path.relative_to(tmp_path / "in").as_posix() for path in written] == [
        "base/artist",
        "base/critic",
        "artist",
        "critic",
        ".",
    ]
    mine, theirs = Artist.load(base / "artist"), Artist.load(tmp_path / "in" / "base" / "artist")
    assert mine.area == theirs.area and dict(mine.scheduler.config).items() >= {"shift_terminal": 0.02}.items()
    for module in ("transformer", "vae"):
        expected, found = getattr(mine, module).state_dict(), getattr(theirs, module).state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    critic = Critic.load(tmp_path / "in" / "base" / "critic", tmp_path / "in" / "critic")
    photo = torch.rand(3, 56, 56, generator=torch.Generator().manual_seed(0))
    before = Critic.load(base / "critic", adapters / "critic").generate([photo], max_new_tokens=4)
    assert torch.equal(critic.generate([photo], max_new_tokens=4).latent.states_BLD, before.latent.states_BLD)


def test_shards_are_joined(base: Path, tmp_path: Path) -> None:
    split = tmp_path / "base"
    for part in ("critic", "artist"):
        (split / part).parent.mkdir(parents=True, exist_ok=True)
        (split / part).symlink_to(base / part)
    (split / "artist").unlink()
    for folder in ("vae", "scheduler"):
        (split / "artist").mkdir(exist_ok=True)
        (split / "artist" / folder).symlink_to(base / "artist" / folder)
    shards = split / "artist" / "transformer"
    shards.mkdir()
    tensors = load_file(base / "artist" / "transformer" / "diffusion_pytorch_model.safetensors")
    names = sorted(tensors)
    (shards / "config.json").write_text((base / "artist" / "transformer" / "config.json").read_text())
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in part}, shards / f"part-{number}.safetensors")
    export_release(tmp_path / "out", split, None, None)
    joined = stored_shapes([tmp_path / "out" / "dit.safetensors"])
    assert joined == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert fingerprint(joined) == fingerprint(stored_shapes(sorted(shards.glob("*.safetensors"))))


def _with_whole_weights(adapter: Path, model: torch.nn.Module, part: str, folder: Path) -> dict[str, torch.Tensor]:
    """An adapter's folder as a stage with `trainable: full` leaves it, with every weight of `part` changed."""
    shutil.copytree(adapter, folder)
    weights = {name: value + 0.25 for name, value in model.state_dict().items() if name.startswith(part)}
    save_file(weights, folder / WEIGHTS_FILE)
    return weights


def test_weights_trained_in_full_replace_those_of_the_base_models(base: Path, adapters: Path, tmp_path: Path) -> None:
    critic_model, artist_model = Critic.load(base / "critic").model, Artist.load(base / "artist").transformer
    artist = _with_whole_weights(adapters / "artist", artist_model, "transformer_blocks.", tmp_path / "artist")
    critic = _with_whole_weights(adapters / "critic", critic_model, "model.language_model.layers.", tmp_path / "critic")
    assert artist and critic
    export_release(tmp_path / "out", base, tmp_path / "critic", tmp_path / "artist")
    before, written = artist_model.state_dict(), load_file(tmp_path / "out" / "dit.safetensors")
    assert written.keys() == before.keys()
    assert all(torch.equal(value, artist.get(name, before[name])) for name, value in written.items())
    before, loaded = critic_model.state_dict(), Critic.load(tmp_path / "out" / "vlm").model.state_dict()
    assert loaded.keys() == before.keys()
    assert all(torch.equal(value, critic.get(name, before[name])) for name, value in loaded.items())


def test_an_adapter_is_not_parted_from_its_weights(base: Path, adapters: Path, tmp_path: Path) -> None:
    _with_whole_weights(adapters / "artist", torch.nn.Linear(2, 2), "weight", tmp_path / "artist")
    with pytest.raises(ReleaseError, match=rf"{WEIGHTS_FILE}.*export the base models"):
        export_release(tmp_path / "out", base, None, tmp_path / "artist", adapters_only=True)
    with pytest.raises(ReleaseError, match="none was given"):
        export_release(tmp_path / "out", base, None, None, adapters_only=True)
    with pytest.raises(ReleaseError, match=r"weight \(2, 2\) is no weight of"):
        export_release(tmp_path / "other", base, None, tmp_path / "artist")
    assert not (tmp_path / "out").exists()


def test_command_line(base: Path, adapters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "--base", str(base), "--artist", str(adapters / "artist"), "--adapters-only"]
    assert main(["release", *command, "--diffusers", "--out", str(tmp_path / "lora")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "lora" / "dit_lora")]
    assert (tmp_path / "lora" / "dit_lora" / "pytorch_lora_weights.safetensors").is_file()
    assert main(["release", *command, "--out", str(tmp_path / "lora")]) == 2
    assert "has content" in capsys.readouterr().err
    imported = ["import", "--models", str(base), "--source", str(tmp_path / "lora"), "--out", str(tmp_path / "in")]
    assert main(["release", *imported]) == 0
    assert Artist.load(base / "artist", tmp_path / "in" / "artist").transformer.peft_config["default"].r == 32
    with pytest.raises(ReleaseError, match=r"dit\.safetensors"):
        import_release(tmp_path / "nowhere", tmp_path / "nothing", models=base)
