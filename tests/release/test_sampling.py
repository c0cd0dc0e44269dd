"""The sampling path against diffusers' own pipeline, and the release's habits against their statements."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as reference
from PIL import Image

from components.evaluation.generative import GenerativeBaseline, GenerativeEditor, tell_picture_tokens
from components.models.artist import Artist
from components.models.critic import Critic
from components.models.flow import inference_sigmas
from components.models.lora import LoraSettings
from components.release.sampling import (
    EDIT_PLUS,
    RELEASE,
    Sampler,
    SamplingSettings,
    fitted_size,
    use_feed_forward,
)

INSTRUCTION = "exposure contrast"
SEEN, AREA = 56 * 84, 64 * 96


@pytest.fixture
def models(base) -> tuple[Artist, Critic]:
    return Artist.load(base / "artist"), Critic.load(base / "critic")


@pytest.fixture
def picture(photo_factory) -> Image.Image:
    pixels = photo_factory(90, 140).permute(1, 2, 0).numpy()
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def pipeline(artist: Artist, critic: Critic) -> QwenImageEditPlusPipeline:
    """Diffusers' pipeline on the same models, as it runs as a baseline: told which tokens are the picture's."""
    model, processor = critic.vision_language_model, critic.processor
    tell_picture_tokens(model)
    made = QwenImageEditPlusPipeline(
        artist.scheduler, artist.vae, model, processor.tokenizer, processor, artist.transformer
    )
    made.set_progress_bar_config(disable=True)
    return made


def test_the_same_as_diffusers_own_pipeline(models, picture, monkeypatch) -> None:
    monkeypatch.setattr(reference, "CONDITION_IMAGE_SIZE", SEEN)
    monkeypatch.setattr(reference, "VAE_IMAGE_SIZE", AREA)
    settings = EDIT_PLUS.model_copy(update={"steps": 5, "seen_area": SEEN, "source_area": AREA, "target_area": AREA})
    sampler = Sampler(*models, settings)
    ours = sampler.edit(picture, torch.Generator().manual_seed(3), INSTRUCTION)
    target, _, seen = sampler.sizes(picture)
    theirs = pipeline(*models)

    def run(output_type: str):
        return theirs(
            picture,
            INSTRUCTION,
            height=target.height,
            width=target.width,
            num_inference_steps=5,
            generator=torch.Generator().manual_seed(3),
            output_type=output_type,
        ).images

    with torch.no_grad():
        latents = run("latent")
        image = run("pil")[0]
        shown = theirs.image_processor.resize(picture, seen.height, seen.width)
        embeddings, _ = theirs.encode_prompt([INSTRUCTION], [shown])
    torch.testing.assert_close(ours.sigmas, theirs.scheduler.sigmas, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.latent.states_BLD, embeddings, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.latents_1SC, latents, rtol=0, atol=1e-4)
    assert ours.latents_1SC.std() > 0.1
    difference = np.abs(np.asarray(ours.picture, dtype=int) - np.asarray(image, dtype=int))
    assert ours.picture.size == image.size and difference.max() <= 1


def test_the_baseline_is_told_which_tokens_are_the_pictures(models, picture, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(reference, "CONDITION_IMAGE_SIZE", SEEN)
    artist, critic = models
    processor, plain = critic.processor, critic.vision_language_model
    made = QwenImageEditPlusPipeline(
        artist.scheduler, artist.vae, plain, processor.tokenizer, processor, artist.transformer
    )
    made.save_pretrained(tmp_path / "edit_plus")
    settings = GenerativeBaseline(name="edit_plus", model=str(tmp_path / "edit_plus"), dtype="float32")
    editor = GenerativeEditor(settings)
    sampler = Sampler(*models, EDIT_PLUS.model_copy(update={"seen_area": SEEN}))
    shown = editor.pipeline.image_processor.resize(picture, *sampler.sizes(picture)[2])
    expected, _ = sampler._condition(shown, INSTRUCTION)
    with torch.no_grad():
        untold, _ = made.encode_prompt([INSTRUCTION], [shown])
        told, _ = editor.pipeline.encode_prompt([INSTRUCTION], [shown])
    torch.testing.assert_close(told, expected.states_BLD, rtol=0, atol=1e-4)
    assert (untold - expected.states_BLD).abs().max() > 1e-3, "what it is without"
    tell_picture_tokens(None)
    tell_picture_tokens(torch.nn.Linear(1, 1))


def test_the_repetition_penalty_is_that_of_the_critics_file(models, picture) -> None:
    artist, critic = models
    assert RELEASE.repetition_penalty is None and EDIT_PLUS.repetition_penalty == SamplingSettings().repetition_penalty
    update = {"steps": 1, "seen_area": SEEN, "source_area": AREA, "target_area": AREA, "max_new_tokens": 12}
    settings = RELEASE.model_copy(update=update)

    def written(settings: SamplingSettings) -> str:
        return Sampler(artist, critic, settings).edit(picture, torch.Generator().manual_seed(0)).text

    plain = written(settings)
    critic.vision_language_model.generation_config.repetition_penalty = 100.0
    assert written(settings) != plain == written(settings.model_copy(update={"repetition_penalty": 1.0}))
    critic.vision_language_model.generation_config.repetition_penalty = None


def test_a_source_of_another_size_than_the_edit(models, picture) -> None:
    update = {"steps": 2, "seen_area": SEEN, "source_area": 32 * 64, "target_area": AREA, "max_new_tokens": 3}
    edit = Sampler(*models, RELEASE.model_copy(update=update)).edit(picture, torch.Generator().manual_seed(0))
    assert edit.source_1RC.shape[1] != edit.latents_1SC.shape[1]
    assert edit.latents_1SC.isfinite().all() and edit.text
    assert edit.latent.states_BLD.shape[1] == edit.latent.mask_BL.sum()


def test_the_same_as_the_releases_steps_written_out(models, picture) -> None:
    """What infer.py and DiffSynth compute, restated plainly on the models' parts, in float32."""
    artist, critic = models
    update = {
        "steps": 4,
        "precision": "float32",
        "seen_area": AREA,
        "source_area": AREA,
        "target_area": AREA,
        "max_new_tokens": 3,
    }
    sampler = Sampler(artist, critic, RELEASE.model_copy(update=update))
    edit = sampler.edit(picture, torch.Generator().manual_seed(7))
    target, source, _ = sampler.sizes(picture)

    use_feed_forward(artist.transformer, "tanh")
    for block in artist.transformer.transformer_blocks:
        for layers in (block.img_mlp, block.txt_mlp):
            layers.net[0].register_forward_hook(
                lambda layer, x, _: layer.proj(x[0]) * torch.sigmoid(1.702 * layer.proj(x[0]))
            )
    noise = torch.randn(1, 8, target.height // 4, target.width // 4, generator=torch.Generator().manual_seed(7))
    small = picture.resize((target.width, target.height)).resize((source.width, source.height))
    pixels = torch.from_numpy(np.array(small, dtype=np.float32)).permute(2, 0, 1)[None, :, None] * (2 / 255) - 1

    def packed(latents: torch.Tensor) -> torch.Tensor:
        _, channels, height, width = latents.shape
        rows = latents.reshape(1, channels, height // 2, 2, width // 2, 2)
        return torch.einsum("bchpwq->bhwcpq", rows).reshape(1, height * width // 4, channels * 4)

    with torch.no_grad():
        encoded = packed(artist.vae.encode(pixels).latent_dist.mean[:, :, 0])
        seen = torch.from_numpy(np.array(small, dtype=np.float32)).permute(2, 0, 1) / 255
        states = critic.generate([seen], max_new_tokens=3).latent.states_BLD
        state, tokens = packed(noise), target.height * target.width // 64
        mu = 0.5 + 0.4 / 7936 * (tokens - 256)
        sigmas = np.linspace(1, 0, 5)[:-1]
        shifted = math.exp(mu) / (math.exp(mu) + (1 / sigmas - 1))
        levels = [*(1 - (1 - shifted) / ((1 - shifted[-1]) / 0.98)), 0.0]
        shapes = [(1, size.height // 8, size.width // 8) for size in (target, source)]
        for now, after in pairwise(levels):
            velocity = artist.transformer(
                hidden_states=torch.cat([state, encoded], dim=1),
                encoder_hidden_states=states,
                timestep=torch.tensor([now], dtype=torch.float32),
                img_shapes=[shapes],
                return_dict=False,
            )[0][:, :tokens]
            state = state + velocity * (after - now)
    torch.testing.assert_close(edit.latents_1SC, state, rtol=0, atol=1e-4)
    assert edit.picture.size == (target.width, target.height)


@pytest.mark.parametrize(("width", "height"), [(6000, 4000), (4000, 6000), (1023, 767), (900, 100), (640, 640)])
def test_the_releases_sizes(models, width: int, height: int) -> None:
    target, source, seen = Sampler(*models, RELEASE).sizes(Image.new("RGB", (width, height)))
    ratio = width / height
    tall = int(math.sqrt(1024 * 1024 / ratio))
    assert target == (round(tall / 16) * 16, round(int(tall * ratio) / 16) * 16)
    shape = target.width / target.height
    wide = math.sqrt(1024 * 1024 * shape)
    assert source == seen == (round(wide / shape / 32) * 32, round(wide / 32) * 32)


def test_the_releases_schedule(models) -> None:
    tokens, steps = 4056, 20
    sigmas = np.linspace(1, 0, steps + 1, dtype=np.float64)[:-1]
    mu = 0.5 + (0.9 - 0.5) / (8192 - 256) * (tokens - 256)
    shifted = math.exp(mu) / (math.exp(mu) + (1 / sigmas - 1))
    stretched = 1 - (1 - shifted) / ((1 - shifted[-1]) / (1 - 0.02))
    expected = torch.tensor([*stretched, 0.0], dtype=torch.float32)
    torch.testing.assert_close(inference_sigmas(models[0].scheduler, steps, tokens), expected, rtol=0, atol=1e-5)


def test_the_release_rounds_thousandths(models) -> None:
    """DiffSynth holds timesteps of 0 to 1000 in the weights' precision and divides them in it; diffusers multiplies."""
    artist, critic = models
    artist.vae.to(torch.bfloat16)
    try:
        sigmas = inference_sigmas(artist.scheduler, 20, 4056)[:-1].tolist()
        told = {
            name: torch.cat([Sampler(artist, critic, settings)._timestep(sigma) for sigma in sigmas]).float()
            for name, settings in (("release", RELEASE), ("ours", SamplingSettings()))
        }
    finally:
        artist.vae.to(torch.float32)
    assert EDIT_PLUS.timestep == "level" != RELEASE.timestep
    exact = torch.tensor(sigmas)
    assert torch.equal(told["ours"], exact.bfloat16().float())
    assert torch.equal(told["release"], ((exact * 1000).bfloat16() / 1000).float())
    assert 3 <= int((told["release"] != told["ours"]).sum()) <= 10, "of 20 steps"


def test_the_feed_forward_is_switched_and_its_weights_stay(models) -> None:
    artist, _ = models
    artist.add_adapter(LoraSettings(rank=2, alpha=4))
    before = {name: tensor.data_ptr() for name, tensor in artist.transformer.state_dict().items()}
    layer = artist.transformer.get_base_model().transformer_blocks[0].img_mlp
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    projected = layer.net[0].proj(x)
    expected = {
        "sigmoid": projected * torch.sigmoid(1.702 * projected),
        "tanh": 0.5 * projected * (1 + torch.tanh(math.sqrt(2 / math.pi) * (projected + 0.044715 * projected**3))),
    }
    for kind in ("sigmoid", "tanh"):
        use_feed_forward(artist.transformer, kind)
        torch.testing.assert_close(layer.net[0](x), expected[kind])
        assert {name: t.data_ptr() for name, t in artist.transformer.state_dict().items()} == before


def test_noise_is_drawn_as_said(models) -> None:
    artist, critic = models
    grid = artist.grid(torch.empty(3, 32, 48))
    released = Sampler(artist, critic, RELEASE)._noise(grid, torch.Generator().manual_seed(5))
    drawn = torch.randn(1, 8, 8, 12, generator=torch.Generator().manual_seed(5), dtype=torch.bfloat16)
    packed = QwenImageEditPlusPipeline._pack_latents(drawn[:, None], 1, 8, 8, 12)
    assert released.dtype == torch.bfloat16 and torch.equal(released, packed)
    ours = Sampler(artist, critic, SamplingSettings())._noise(grid, torch.Generator().manual_seed(5))
    assert torch.equal(ours, torch.randn(1, grid.tokens, 32, generator=torch.Generator().manual_seed(5)))


def test_what_cannot_be_sampled_says_why(models, picture) -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match="takes an instruction"):
        Sampler(*models, EDIT_PLUS).edit(picture, generator)
    with pytest.raises(ValueError, match="takes no instruction"):
        Sampler(*models, RELEASE).edit(picture, generator, INSTRUCTION)
    odd = SamplingSettings(target_area=5500, source_area=AREA, target_multiple=4)  # 60 pixels high, tokens have 8
    with pytest.raises(ValueError, match="target_multiple"):
        Sampler(*models, odd).edit(picture, generator)
    assert fitted_size(100, 1.0, 32, cut=False) == (32, 32)
