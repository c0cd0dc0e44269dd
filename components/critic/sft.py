"""Stage I of the Critic: supervised fine-tuning on [reasoning -> suggestions -> score]."""

import re
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from components.compute import ComputeSettings
from components.critic.grammar import parses
from components.critic.model import Critic
from components.data.annotations import AnnotatedPhoto, read_annotations, render_view
from components.images import read_photo
from components.lora import LoraSettings
from components.strict import Strict
from components.training.checkpoints import CheckpointStore
from components.training.loop import OptimiserSettings, fit
from components.training.tracker import Tracker

DIRECTION_WEIGHT = 4.0
SCORE_WEIGHT = 4.0
_DIRECTION = re.compile(r"\b(?:low|high|cold|warm)\b(?= (?:slight|moderate|severe)\b)")
_SCORE = re.compile(r"(?<=<answer> )\d+(?= </answer>)")


class CriticSftSettings(Strict):
    """Supervised fine-tuning of the Critic."""

    lora: LoraSettings = Field(default_factory=LoraSettings)
    optimiser: OptimiserSettings
    batch_size: int = Field(default=16, gt=0)
    direction_weight: float = Field(
        default=DIRECTION_WEIGHT,
        ge=1,
        description="of the words that name a fault's direction: passing it over is the worse mistake",
    )
    score_weight: float = Field(
        default=SCORE_WEIGHT, ge=1, description="of the digits of the score: two tokens of a hundred, read by everybody"
    )
    checkpoint_every: int = Field(default=25, gt=0, description="optimiser steps")
    compute: ComputeSettings = Field(default_factory=ComputeSettings)
    seed: int = Field(default=0, ge=0)


def train_critic(
    base: Path,
    annotations_dir: Path,
    photos_dir: Path,
    out: Path,
    settings: CriticSftSettings,
    tracker: Tracker,
    checkpoints: Path,
) -> dict[str, float]:
    """Fine-tune the base Critic on the annotated training views and write its PEFT adapter to `out`.

    Args:
        base: folder of the base models; the Critic's is `base/critic`.
        checkpoints: folder that outlives the process; a run that was killed continues from there.

    Returns:
        closing metrics: training loss, and loss and share of well-formed completions on the validation split.
    """
    critic = Critic.load(base / "critic", placement=settings.compute.place())
    critic.add_adapter(settings.lora, settings.seed)
    if settings.compute.gradient_checkpointing:
        critic.checkpoint_gradients()
    views = load_views(read_annotations(annotations_dir, "train"), photos_dir)

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        chosen = torch.randint(len(views), (settings.batch_size,), generator=generator).tolist()
        batch = [views[i] for i in chosen]
        return {"loss": completion_loss(critic, batch, settings.direction_weight, settings.score_weight)}

    trained = [(n, p) for n, p in critic.model.named_parameters() if p.requires_grad]
    store = CheckpointStore(checkpoints)
    closing = fit(
        "critic_sft", trained, losses, settings.optimiser, tracker, store, settings.seed, settings.checkpoint_every
    )
    held_out = load_views(read_annotations(annotations_dir, "validation"), photos_dir)
    if held_out:
        closing |= validate(critic, held_out)
    tracker.metrics({f"critic_sft/{name}": value for name, value in closing.items()}, settings.optimiser.steps)
    critic.save_adapter(out)
    return closing


def load_views(annotated: list[AnnotatedPhoto], photos_dir: Path) -> list[tuple[Tensor, str]]:
    """Pictures (3, H, W) in [0, 1] with the completions to learn; every photo is decoded once."""
    views, path, photo = [], None, None
    for entry in annotated:
        if entry.path != path:
            path, photo = entry.path, read_photo(photos_dir / entry.path)
        views.append((render_view(photo, entry), entry.completion))
    return views


def completion_loss(
    critic: Critic, views: list[tuple[Tensor, str]], direction_weight: float = 1.0, score_weight: float = 1.0
) -> Tensor:
    """Mean cross-entropy, in nats, of the completion tokens; the prompt is not learnt.

    Args:
        direction_weight: factor of the tokens that name the direction of a fault ("low", "warm"). Half of the
            attributes of a faulty photo are fine, so the likeliest single word is "fine" wherever there is doubt;
            without this weight greedy verdicts pass over most faults.
        score_weight: factor of the tokens that spell the score.
    """
    texts = [text for _, text in views]
    tokens, mask = critic.encode_completions(texts)
    _, logits = critic.forward(critic.prompts([view for view, _ in views]), tokens, mask)
    losses = functional.cross_entropy(logits[mask].float(), tokens[mask], reduction="none")
    weights = _token_weights(critic, texts, tokens.shape[1], {_DIRECTION: direction_weight, _SCORE: score_weight})
    return (losses * weights[mask.to(weights.device)].to(losses)).mean()


def _token_weights(critic: Critic, texts: list[str], length: int, factors: dict[re.Pattern[str], float]) -> Tensor:
    """(B, length) the factor of every token: that of the pattern whose matches it spells, else 1."""
    weights = torch.ones(len(texts), length)
    encoded = critic.processor.tokenizer(texts)
    for row, text in enumerate(texts):
        for pattern, factor in factors.items():
            for match in pattern.finditer(text):
                for position in range(*match.span()):
                    weights[row, encoded.char_to_token(row, position)] = factor
    return weights


@torch.no_grad()
def validate(critic: Critic, views: list[tuple[Tensor, str]], batch_size: int = 32) -> dict[str, float]:
    """Loss and share of greedy completions that parse, on views that were not trained on."""
    batches = [views[start : start + batch_size] for start in range(0, len(views), batch_size)]
    loss = sum(float(completion_loss(critic, batch)) * len(batch) for batch in batches) / len(views)
    texts = [text for batch in batches for text in critic.generate([view for view, _ in batch]).texts]
    return {"validation_loss": loss, "validation_parse_rate": sum(parses(t) is not None for t in texts) / len(texts)}
