"""Stage I of the Critic: supervised fine-tuning on [reasoning -> suggestions -> score]."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from components.annotation.records import Annotations, read_annotations
from components.models.compute import TrainingComputeSettings
from components.models.critic import Critic
from components.models.lora import LoraSettings
from components.models.weights import Trainable
from components.parallel.ranks import Share, all_reduce, enough_rows, is_main, world_size
from components.parallel.sharding import accumulate
from components.photometry.operations import TONE
from components.strict import Strict
from components.training.checkpoints import CheckpointStore
from components.training.held_out import HeldOutSettings
from components.training.loading import LoadingSettings
from components.training.loop import OptimiserSettings, fit
from components.training.passes import metered
from components.training.tracker import Tracker
from components.training.views import View, ViewBatches
from components.verdict.grammar import direction_spans, parses, score_spans

Spans = Callable[[str], list[tuple[int, int]]]
"""Where a text says something, as spans of characters."""
DIRECTION_WEIGHT = 4.0
SCORE_WEIGHT = 4.0
VALIDATION_BATCH = 32
LOOKED_AT = 10_000
"""Texts, at most, of which it is reported in how many directions are found."""
FEWEST_NAMED = 0.05
"""Share of the texts about faulty views below which it is said that the directions of faults are not found."""

log = logging.getLogger(__name__)


class CriticSftSettings(Strict):
    """Supervised fine-tuning of the Critic."""

    trainable: Trainable = Field(
        default="lora",
        description='"lora": an adapter; "full": the weights of all blocks, while the adapter stays as it is.',
    )
    lora: LoraSettings = Field(default_factory=LoraSettings)
    optimiser: OptimiserSettings
    batch_size: int = Field(default=16, gt=0, description="Views per optimiser step, of all ranks together.")
    micro_batch: int | None = Field(
        default=None, gt=0, description="Views in one pass of a rank, to limit memory; all of its share by default."
    )
    direction_weight: float = Field(
        default=DIRECTION_WEIGHT,
        ge=1,
        description="Weight of the words that name a fault's direction: missing a fault is the worse mistake.",
    )
    score_weight: float = Field(
        default=SCORE_WEIGHT,
        ge=1,
        description="Weight of the digits of the score: two tokens in a hundred, which everybody reads.",
    )
    checkpoint_every: int = Field(default=25, gt=0, description="Optimiser steps between checkpoints.")
    held_out: HeldOutSettings = Field(default_factory=HeldOutSettings)
    max_new_tokens: int = Field(default=200, gt=0, description="Longest completion in a validation. Tokens.")
    loading: LoadingSettings = Field(default_factory=LoadingSettings)
    compute: TrainingComputeSettings = Field(default_factory=TrainingComputeSettings)
    seed: int = Field(default=0, ge=0, description="Of the adapter's first weights and of the order of the views.")

    @model_validator(mode="after")
    def _every_process_has_work(self) -> "CriticSftSettings":
        enough_rows("batch_size", self.batch_size, self.compute.world_size)
        return self


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
    enough_rows("batch_size", settings.batch_size, world_size())
    critic = Critic.load(base / "critic", placement=settings.compute.place())
    critic.add_adapter(settings.lora, settings.seed)
    if settings.compute.gradient_checkpointing:
        critic.checkpoint_gradients()
    if settings.trainable == "full":
        critic.train_weights()
    settings.compute.prepare(critic)
    annotated = read_annotations(annotations_dir, "train")
    _report_directions(annotated, tracker)
    views = ViewBatches(annotated, photos_dir, settings.loading)
    meter = metered(settings.batch_size, critic)
    meter.watch(lambda: views.loader.waited)

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = views.draw(settings.batch_size, generator)
        if step + 1 < settings.optimiser.steps:
            views.expect(settings.batch_size, generator)  # of which this step draws no more

        def part_loss(part: list[View], mine: Share) -> Tensor:
            loss = completion_loss(critic, part, settings.direction_weight, settings.score_weight)
            return loss * _token_share(critic, batch.texts, mine)

        return {
            "loss": accumulate(
                critic.model, [partial(part_loss, part, mine) for part, mine in batch.split(settings.micro_batch)]
            )
        }

    trained = [(n, p) for n, p in critic.model.named_parameters() if p.requires_grad]
    store = CheckpointStore(checkpoints)
    closing = fit(
        "critic_sft",
        trained,
        losses,
        settings.optimiser,
        tracker,
        store,
        settings.seed,
        settings.checkpoint_every,
        meter=meter,
    )
    held_out = ViewBatches(
        read_annotations(annotations_dir, "validation"), photos_dir, settings.loading, settings.held_out
    )
    if len(held_out):
        closing |= validate(critic, held_out, settings.max_new_tokens, validation_batch(settings, world_size()))
    tracker.metrics({f"critic_sft/{name}": value for name, value in closing.items()}, settings.optimiser.steps)
    critic.save_adapter(out)
    return closing


def completion_loss(
    critic: Critic, views: list[View], direction_weight: float = 1.0, score_weight: float = 1.0
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
    return weighted_cross_entropy(critic, texts, tokens, mask, logits, direction_weight, score_weight)


def weighted_cross_entropy(
    critic: Critic,
    texts: list[str],
    tokens: Tensor,
    mask: Tensor,
    logits: Tensor,
    direction_weight: float,
    score_weight: float,
) -> Tensor:
    """`completion_loss` of completions whose logits are known.

    Args:
        tokens, mask: (B, T) of the ``texts``, as `Critic.encode_completions` gives them.
        logits: (B, T, V) that predict the tokens.
    """
    losses = functional.cross_entropy(logits[mask].float(), tokens[mask], reduction="none")
    factors: dict[Spans, float] = {direction_spans: direction_weight, score_spans: score_weight}
    weights = _token_weights(critic, texts, tokens.shape[1], factors)
    return (losses * weights[mask.to(weights.device)].to(losses)).mean()


def _token_weights(critic: Critic, texts: list[str], length: int, factors: dict[Spans, float]) -> Tensor:
    """(B, length) the factor of every token: that of the function in whose spans it lies, else 1."""
    weights = torch.ones(len(texts), length)
    encoded = critic.processor.tokenizer(texts)
    for row, text in enumerate(texts):
        for spans, factor in factors.items():
            for span in spans(text):
                for position in range(*span):
                    weights[row, encoded.char_to_token(row, position)] = factor
    return weights


def _report_directions(annotated: Annotations, tracker: Tracker) -> None:
    """Report in what share of the texts about views with a fault of tone its direction is found; warn when in none.

    Of very many texts only some are looked at, evenly spaced.
    """
    looked_at = annotated[:: -(-len(annotated) // LOOKED_AT) or 1]
    faulty = [entry.completion for entry in looked_at if any(fault.name in TONE for fault in entry.operations)]
    if not faulty:
        return
    named = sum(bool(direction_spans(text)) for text in faulty)
    tracker.metrics({"critic_sft/direction_match_rate": named / len(faulty)}, 0)
    if named < FEWEST_NAMED * len(faulty) and is_main():
        log.warning(
            "of %d texts about views with a fault of tone %d name its direction in words that the grammar knows: "
            "direction_weight does next to nothing; add the annotator's words to components/verdict/grammar.py",
            len(faulty),
            named,
        )


def _token_share(critic: Critic, texts: list[str], mine: Share) -> float:
    """What the mean over the tokens of this rank's texts counts in the mean over those of the whole batch."""
    if mine.whole:
        return mine.weight
    lengths = [critic.encode_completions([text])[1].sum().item() for text in texts]
    return sum(mine.of(lengths)) / sum(lengths) / mine.copies


def validation_batch(settings: CriticSftSettings, ranks: int) -> int:
    """Views of a batch of a validation, of all ranks together: a rank holds no more of them than in training."""
    return min(VALIDATION_BATCH, (settings.micro_batch or VALIDATION_BATCH) * ranks)


@torch.no_grad()
def validate(critic: Critic, views: ViewBatches, max_new_tokens: int, batch_size: int) -> dict[str, float]:
    """Loss and share of greedy completions that parse, on views that were not trained on; ranks divide each batch."""
    loss = parsed = 0.0
    bar = tqdm(total=len(views), desc="validation", unit="view", disable=not is_main())
    for batch in views.in_order(batch_size):
        mine = batch.share
        loss += float(completion_loss(critic, batch.views)) * _token_share(critic, batch.texts, mine) * mine.total
        texts = critic.generate([view for view, _ in batch.views], max_new_tokens=max_new_tokens, share=mine).texts
        parsed += sum(parses(text) is not None for text in texts) / mine.copies
        bar.update(mine.total)
    bar.close()
    sums = all_reduce({"validation_loss": loss, "validation_parse_rate": parsed})
    return {name: value / len(views) for name, value in sums.items()}
