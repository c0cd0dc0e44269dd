"""Build and train the tiny Critic: Qwen2.5-VL's architecture at a few million parameters, from scratch.

First its vision tower learns to see what is wrong with a photo (`tools.base_models.tower`), then its language model to
put into words what the tower, which is left as it is, sees. Beside the words, the hidden state that the prompt ends in
is asked for the numbers that would mend the photo: hidden states are what the Artist gets to see, and the words alone
would not keep the numbers in them.

Tokenizer and processor are of the published classes in the published on-disk format; the byte-level BPE is trained
on what the Critic reads and writes, so that a word is mostly one token.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from tqdm import trange
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from components.annotation.offline import describe
from components.data.faults import SEVERITY
from components.models.critic import Critic
from components.photometry.operations import TONE, Operation
from components.training.checkpoints import CheckpointStore
from components.training.critic_sft import DIRECTION_WEIGHT, SCORE_WEIGHT, weighted_cross_entropy
from components.training.loop import OptimiserSettings, fit
from components.training.tracker import Tracker
from components.verdict.grammar import render
from components.verdict.prompt import PROMPT, SYSTEM
from tools.base_models.correction import NUMBERS
from tools.base_models.faults import Spoilt, nearest_amounts, spoil
from tools.base_models.tiles import Size, Tiles
from tools.base_models.tower import SIZES, Guess, guess_loss, in_batches, initialise, train_tower

MAX_PIXELS = 2464
"""The photo that the tiny Critic is shown: 56x40 pixels at 3:2 and 4:3, 48x48 at 1:1, 64x32 at 16:9.

In so small a picture colours and tones are all there; the patches of 4 pixels let the tower's first layers look at
colours, of which a patch of 14 pixels shows little but sums.
"""
PATCH = 4
"""Side of the tower's patches in pixels; four of them make a token."""
NUMBERS_WEIGHT = 0.1
"""Of the loss in colour units, beside a cross-entropy in nats."""
_WORTH_A_WORD = 0.5
"""Share of the just visible amount from which a fault is named."""
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_processor(
    corpus: list[str], patch: int = PATCH, pixels: tuple[int, int] = (32 * 32, MAX_PIXELS)
) -> Qwen2_5_VLProcessor:
    """A Qwen2.5-VL processor whose vocabulary is learnt from `corpus`.

    Args:
        patch: side of the tower's patches in pixels.
        pixels: fewest and most that a photo is shown with.
    """
    reference = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = reference.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=1024, initial_alphabet=alphabet, show_progress=False)
    )
    with tempfile.TemporaryDirectory() as folder:
        bpe.model.save(folder)
        vocab = json.loads((Path(folder) / "vocab.json").read_text())
        lines = (Path(folder) / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if not line.startswith("#version")]
    tokenizer = Qwen2Tokenizer(
        vocab=vocab, merges=merges, extra_special_tokens=SPECIAL_TOKENS[1:], model_max_length=2048
    )
    size = dict(zip(("shortest_edge", "longest_edge"), pixels, strict=True))
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, patch_size=patch),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size, patch_size=patch),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: Qwen2_5_VLProcessor) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained tiny Qwen2.5-VL (four vision layers and four text layers of width 128)."""
    ids = processor.tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": (len(processor.tokenizer) + 15) // 16 * 16,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_heads": 4,
            "out_hidden_size": 128,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


class Annotated(NamedTuple):
    """Pictures of one size, what they were, and the verdicts that the offline annotator writes about them.

    Attributes:
        pictures, intact: (N, 3, H, W) uint8, with and without the fault.
        faulty: (N) which of them have one.
        texts: N completions.
    """

    pictures: Tensor
    intact: Tensor
    faulty: Tensor
    texts: list[str]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Spoilt, Tensor, list[str]]:
        """Some of them, with the pictures (count, 3, H, W) in [0, 1]."""
        rows = torch.randint(len(self.texts), (count,), generator=generator)
        spoilt = Spoilt(self.pictures[rows].float() / 255, self.faulty[rows])
        return spoilt, self.intact[rows].float() / 255, [self.texts[row] for row in rows.tolist()]


def annotate(tiles: Tiles, size: Size, count: int, generator: torch.Generator) -> Annotated:
    """Pictures with faults of both families or none, and the verdict about each.

    A verdict speaks in the project's four operations. What an editor did to a picture is told by the amounts of those
    that come nearest to it.
    """
    batches = []
    for start in trange(0, count, 64, desc=f"verdicts about {size[1]}x{size[0]}", unit="batch"):
        intact = tiles.draw(min(64, count - start), size, generator)
        spoilt = spoil(intact, generator)
        amounts = nearest_amounts(spoilt.pictures, intact)
        texts = [
            render(describe(picture, original, _operations(row) if bad else ()))
            for picture, original, row, bad in zip(
                spoilt.pictures, intact, amounts.tolist(), spoilt.faulty.tolist(), strict=True
            )
        ]
        batches.append(Annotated(_bytes(spoilt.pictures), _bytes(intact), spoilt.faulty, texts))
    return Annotated(
        torch.cat([part.pictures for part in batches]),
        torch.cat([part.intact for part in batches]),
        torch.cat([part.faulty for part in batches]),
        [text for part in batches for text in part.texts],
    )


def _operations(amounts: Sequence[float]) -> tuple[Operation, ...]:
    """The faults that are large enough to be worth a word."""
    return tuple(
        Operation(name=name, amount=round(amount, 4))
        for name, amount in zip(TONE, amounts, strict=True)
        if abs(amount) >= _WORTH_A_WORD * SEVERITY[name][0]
    )


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().to(torch.uint8)


def train_critic(
    tiles: Tiles,
    held_out: Tiles,
    out: Path,
    work: Path,
    tracker: Tracker,
    tower_steps: int,
    steps: int,
    batch: int = 32,
    pool: int = 16_384,
) -> None:
    """Train the tower, then supervised on [reasoning -> suggestions -> score]; writes a `from_pretrained` directory.

    Args:
        tiles: to train on, of all sizes of the tower; ``held_out`` are looked at for the curve.
        out: the directory.
        batch: pictures with verdicts in a step; twice as many more are asked for their numbers alone.
        pool: pictures with verdicts that are made at the start and drawn from.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    share = [annotate(tiles, size, pool // len(SIZES), generator) for size in SIZES]
    corpus = [text for part in share for text in part.texts[:150]]
    processor = build_processor([*corpus, PROMPT, SYSTEM, "system user assistant"])
    critic = Critic(build_model(processor), processor)
    tower, language = critic.model.model.visual, critic.model.model.language_model
    train_tower(tower, tiles, held_out, work, tracker, tower_steps)
    tower.requires_grad_(False)
    initialise(language)
    numbers = Numbers(language.config.hidden_size)

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        part = step % len(SIZES)
        spoilt, intact, texts = share[part].draw(batch, generator)
        tokens, mask = critic.encode_completions(texts)
        prompts = critic.prompts(list(spoilt.pictures))
        more = tiles.draw(2 * batch, SIZES[part], generator)
        more_spoilt = spoil(more, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden, logits = critic.forward(prompts, tokens, mask)
            guess = numbers(hidden[:, prompts.input_ids_BP.shape[1] - 1])
            more_guess = numbers(_prompt_states(critic, more_spoilt.pictures)[:, -1])
        words = weighted_cross_entropy(critic, texts, tokens, mask, logits, DIRECTION_WEIGHT, SCORE_WEIGHT)
        known, new = guess_loss(guess, spoilt, intact), guess_loss(more_guess, more_spoilt, more)
        return {"loss": words + NUMBERS_WEIGHT * (known["loss"] + new["loss"]), "words": words.detach()} | {
            name: new[name].detach() for name in ("left", "intact", "expected")
        }

    settings = OptimiserSettings(
        learning_rate=3e-3, steps=steps, warmup_steps=100, weight_decay=0.05, ema_decay=0.998, final_fraction=0.02
    )
    parameters = [
        *((f"language.{name}", value) for name, value in language.named_parameters()),
        *((f"numbers.{name}", value) for name, value in numbers.named_parameters()),
    ]
    matrices = [name for name, value in parameters if name.startswith("language.layers") and value.ndim == 2]
    store = CheckpointStore(work / "critic")
    with in_batches(tower):
        fit("base_critic", parameters, losses, settings, tracker, store, 2, 200, 20, orthogonalised=matrices)
    critic.model.eval().to(torch.float16).save_pretrained(out)
    processor.save_pretrained(out)


class Numbers(nn.Module):
    """Reads a guess off one hidden state (B, D): linear, so that whoever looks at the state finds the numbers in it."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, NUMBERS + 1)

    def forward(self, state: Tensor) -> Guess:
        out = self.linear(state).float()
        return Guess(0.3 * out[:, :NUMBERS], out[:, NUMBERS])


def _prompt_states(critic: Critic, pictures: Tensor) -> Tensor:
    """Hidden states (B, P, D) of the prompt alone about pictures of one size."""
    prompts = critic.prompts(list(pictures))
    nothing = torch.full((len(pictures), 1), critic.pad_token)
    hidden, _ = critic.forward(prompts, nothing, torch.ones_like(nothing, dtype=torch.bool))
    return hidden[:, :-1]
