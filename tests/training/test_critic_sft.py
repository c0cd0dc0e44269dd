"""Stage I of the Critic: the loss against transformers and by hand, and a run that resumes to the same adapter."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from components.annotation.records import read_annotations
from components.models.critic import Critic
from components.models.lora import LoraSettings
from components.parallel.ranks import Share
from components.training import critic_sft as sft
from components.training.critic_sft import CriticSftSettings, completion_loss, train_critic, validate
from components.training.held_out import HeldOutSettings
from components.training.loop import OptimiserSettings
from components.training.tracker import NullTracker
from components.training.views import ViewBatches
from components.verdict.grammar import Verdict, render, suggest
from tests.recording import RecordingTracker
from tests.tiny_data import PHOTOS, write_annotations

SETTINGS = CriticSftSettings(
    lora=LoraSettings(rank=2, alpha=4),
    optimiser=OptimiserSettings(learning_rate=1e-2, steps=4, warmup_steps=1),
    batch_size=2,
    checkpoint_every=2,
)
TEXTS = (
    "1. clean; exposure low severe; low light. 2. cold slight.",
    "42 edits; exposure fine; contrast high moderate.\n<answer> 42 </answer>",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of annotations and photos."""
    folder = tmp_path_factory.mktemp("data")
    return write_annotations(folder / "annotations", folder / "photos"), folder / "photos"


@torch.no_grad()
def test_the_loss_is_transformers_own_over_the_completion(critic: Critic, photos: list[Tensor]) -> None:
    prompts, (tokens, _) = critic.prompts(photos[:1]), critic.encode_completions(TEXTS[:1])
    logits = critic.model(
        input_ids=torch.cat([prompts.input_ids_BP, tokens], dim=1),
        mm_token_type_ids=torch.cat([prompts.mm_token_type_ids_BP, torch.zeros_like(tokens)], dim=1),
        pixel_values=prompts.pixel_values,
        image_grid_thw=prompts.image_grid_thw_B3,
    ).logits
    config = critic.model.config
    logits[..., [config.image_token_id, config.video_token_id]] = -torch.inf  # which the Critic never writes
    labels = torch.cat([torch.full_like(prompts.input_ids_BP, -100), tokens], dim=1)
    expected = critic.model.loss_function(logits, labels, vocab_size=logits.shape[-1])
    torch.testing.assert_close(completion_loss(critic, [(photos[0], TEXTS[0])]), expected)


@torch.no_grad()
def test_a_batch_is_averaged_over_its_tokens_and_what_matters_weighs_more(critic: Critic, photos: list[Tensor]) -> None:
    views = list(zip(photos[:2], TEXTS, strict=True))
    plain = weighted = count = 0.0
    for photo, text in views:
        tokens, mask = critic.encode_completions([text])
        _, logits = critic.forward(critic.prompts([photo]), tokens, mask)
        losses = functional.cross_entropy(logits[0].double(), tokens[0], reduction="none")
        weights = torch.ones_like(losses)
        position = 0
        for index, token in enumerate(tokens[0, :-1].tolist()):  # byte-level tokens: characters one after the other
            start, position = position, position + len(critic.processor.tokenizer.decode([token]))
            for word, factor in (("low severe", 3.0), ("cold slight", 3.0), ("high moderate", 3.0), ("42 </", 5.0)):
                begin = text.find(word)
                end = begin + len(word.split()[0])
                if begin >= 0 and start < end and position > begin:
                    weights[index] = factor
        assert weights.max() == (5 if "answer" in text else 3)
        plain, weighted, count = plain + losses.sum(), weighted + (weights * losses).sum(), count + len(losses)
    assert float(completion_loss(critic, views)) == pytest.approx(float(plain / count), rel=1e-5)
    assert float(completion_loss(critic, views, 3.0, 5.0)) == pytest.approx(float(weighted / count), rel=1e-5)


FREE = render(
    Verdict(
        reasoning=(
            "Sharp and free of noise, but underexposed by about a stop; the contrast is rather low.",
            "Exposure too low, contrast too low, saturation fine, white balance too warm.",
            "A square frame with the weight on the left.",
            "Flat and gloomy.",
            "Lift the exposure first.",
        ),
        suggestions=(suggest("exposure", 0.9), suggest("temperature", -30)),
        score=41,
    )
)
"""As a large model words it."""


@torch.no_grad()
def test_directions_weigh_more_in_a_large_models_wording_too(critic: Critic, photos: list[Tensor]) -> None:
    views = [(photos[0], FREE)]
    assert float(completion_loss(critic, views, direction_weight=4.0)) != float(completion_loss(critic, views))


def reworded(folder: Path, out: Path, text: str) -> Path:
    """The annotations of a folder, all with the same completion."""
    entries = [entry.model_copy(update={"completion": text}) for entry in read_annotations(folder)]
    out.mkdir()
    (out / "annotations.jsonl").write_text("".join(entry.model_dump_json() + "\n" for entry in entries))
    return out


@pytest.mark.parametrize(("text", "rate"), [(FREE, 1.0), (FREE.replace("too low", "fine"), 1.0)])
def test_how_many_texts_name_a_direction_is_reported(
    base: Path, data: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, rate: float
) -> None:
    tracker, annotations = RecordingTracker(), reworded(data[0], tmp_path / "annotations", text)
    once = SETTINGS.model_copy(update={"optimiser": SETTINGS.optimiser.model_copy(update={"steps": 1})})
    train_critic(base, annotations, data[1], tmp_path / "out", once, tracker, tmp_path / "checkpoints")
    assert tracker.series("critic_sft/direction_match_rate") == [(0, rate)]
    assert "direction" not in caplog.text


def test_texts_whose_directions_cannot_be_found_are_warned_about(
    base: Path, data: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a language that the grammar does not know: the weight would do nothing and say nothing."""
    text = render(Verdict(reasoning=("Zu duster.",) * 5, suggestions=(suggest("exposure", 0.9),), score=41))
    tracker, annotations = RecordingTracker(), reworded(data[0], tmp_path / "annotations", text)
    once = SETTINGS.model_copy(update={"optimiser": SETTINGS.optimiser.model_copy(update={"steps": 1})})
    train_critic(base, annotations, data[1], tmp_path / "out", once, tracker, tmp_path / "checkpoints")
    assert tracker.series("critic_sft/direction_match_rate") == [(0, 0.0)]
    assert "of 6 texts about views with a fault of tone 0 name its direction" in caplog.text


def test_validation_is_over_all_views_and_counts_what_parses(
    critic: Critic, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = ViewBatches(read_annotations(data[0], "train"), data[1], held_out=HeldOutSettings(samples=3))
    views = [view for batch in batches.in_order(8) for view in batch.views]
    assert len(views) == 3
    asked: list[int] = []

    def generate(self: Critic, images: list[Tensor], max_new_tokens: int, share: Share) -> object:
        asked.append(max_new_tokens)
        return type("Rollout", (), {"texts": [views[0][1], "?"][: len(images)]})()

    monkeypatch.setattr(sft.Critic, "generate", generate)
    found = validate(critic, batches, 77, batch_size=2)
    assert found["validation_parse_rate"] == pytest.approx(2 / 3)
    assert asked == [77, 77]
    losses = [(completion_loss(critic, views[:2]), 2), (completion_loss(critic, views[2:]), 1)]
    expected = sum(float(loss.detach()) * count for loss, count in losses) / 3
    assert found["validation_loss"] == pytest.approx(expected)


def run(base: Path, data: tuple[Path, Path], folder: Path, out: str) -> dict[str, float]:
    return train_critic(base, *data, folder / out, SETTINGS, NullTracker(), folder / f"{out}-checkpoints")


@pytest.mark.slow
def test_a_run_that_was_interrupted_ends_with_the_same_adapter(
    base: Path, data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in (base / "critic").iterdir()}
    closing = run(base, data, tmp_path, "whole")
    assert set(closing) >= {"loss", "validation_loss", "validation_parse_rate"}
    original, calls = sft.completion_loss, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(sft, "completion_loss", dying)
    with pytest.raises(KeyboardInterrupt):
        run(base, data, tmp_path, "resumed")
    assert not (tmp_path / "resumed").exists()
    monkeypatch.setattr(sft, "completion_loss", original)
    again = run(base, data, tmp_path, "resumed")
    assert again["validation_loss"] == closing["validation_loss"]
    whole, resumed = (load_file(tmp_path / out / "adapter_model.safetensors") for out in ("whole", "resumed"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(tensor.abs().max() > 0 for name, tensor in whole.items() if "lora_B" in name), "something was learnt"
    assert {path: path.read_bytes() for path in (base / "critic").iterdir()} == before
    Critic.load(base / "critic", tmp_path / "whole")


def test_without_held_out_views_there_is_nothing_to_validate(
    base: Path, data: tuple[Path, Path], tmp_path: Path
) -> None:
    lines = (data[0] / "annotations.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "annotations.jsonl").write_text("".join(x for x in lines if json.loads(x)["split"] == "train"))
    assert len(lines) == 2 * len(PHOTOS)
    closing = train_critic(base, tmp_path, data[1], tmp_path / "out", SETTINGS, NullTracker(), tmp_path / "checkpoints")
    assert "validation_loss" not in closing
