"""Build and train the tiny Critic: Qwen2.5-VL's architecture at a few million parameters, from scratch.

Tokenizer and processor are of the published classes in the published on-disk format; the byte-level BPE is trained
on what the Critic reads and writes, so that a word is mostly one token.
"""

import json
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from components.annotation.offline import describe
from components.data.faults import sample_faults
from components.models.critic import Critic
from components.photometry.operations import apply_operations
from components.training.checkpoints import CheckpointStore
from components.training.critic_sft import DIRECTION_WEIGHT, SCORE_WEIGHT, completion_loss
from components.training.loop import OptimiserSettings, fit
from components.training.tracker import Tracker
from components.verdict.grammar import render
from components.verdict.prompt import PROMPT, SYSTEM
from tools.base_models.photos import PhotoBank

MAX_PIXELS = 140 * 112
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


def build_processor(corpus: list[str]) -> Qwen2_5_VLProcessor:
    """A Qwen2.5-VL processor whose vocabulary is learnt from `corpus`."""
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
    size = {"shortest_edge": 56 * 56, "longest_edge": MAX_PIXELS}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: Qwen2_5_VLProcessor) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained tiny Qwen2.5-VL (four vision layers of width 192, four text layers of width 128)."""
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
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_heads": 6,
            "out_hidden_size": 128,
            "patch_size": 14,
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


def annotated_crops(bank: PhotoBank, count: int, generator: torch.Generator) -> tuple[list[torch.Tensor], list[str]]:
    """Faulty crops and the verdicts that the offline annotator writes for them."""
    height, width = bank.working_size(generator)
    batch = bank.crops(count, (2 * height, 2 * width), generator)
    views, texts = [], []
    for intact in batch:
        faults = sample_faults(generator, intact=0.12)
        view = apply_operations(intact, faults)
        views.append(view)
        texts.append(render(describe(view, intact, faults)))
    return views, texts


def train_critic(bank: PhotoBank, out: Path, work: Path, tracker: Tracker, steps: int, batch: int = 32) -> None:
    """Supervised training on [reasoning -> suggestions -> score]; writes a `from_pretrained` directory to `out`."""
    torch.manual_seed(0)
    _, corpus = annotated_crops(bank, 400, torch.Generator().manual_seed(1))
    processor = build_processor([*corpus, PROMPT, SYSTEM, "system user assistant"])
    critic = Critic(build_model(processor), processor)
    critic.model.train()

    def losses(step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        views, texts = annotated_crops(bank, batch, generator)
        verdicts = list(zip(views, texts, strict=True))
        return {"loss": completion_loss(critic, verdicts, DIRECTION_WEIGHT, SCORE_WEIGHT)}

    settings = OptimiserSettings(learning_rate=1.5e-3, steps=steps, warmup_steps=100, weight_decay=0.05)
    parameters = critic.model.named_parameters()
    fit("base_critic", parameters, losses, settings, tracker, CheckpointStore(work / "critic"), 2, 200, 20)
    critic.model.eval().to(torch.float16).save_pretrained(out)
    processor.save_pretrained(out)
