"""The Critic: Qwen2.5-VL with its processor, its LoRA adapter, and a rollout that keeps the reasoning latent.

Shape legend: B photos or completions, P prompt tokens, T completion tokens, L = P + T - 1 latent positions, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.models.auto.processing_auto import AutoProcessor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from components.models.compute import Placement, generator_on
from components.models.lora import (
    LoraSettings,
    add_adapter,
    load_adapter,
    put_adapter,
    quick_adapters,
    save_adapter,
    without_adapter,
)
from components.models.weights import load_weights, save_weights, train_weights
from components.parallel.ranks import Share, all_reduce_max
from components.parallel.sharding import move_rest, shard
from components.verdict.prompt import PROMPT, conversation

if TYPE_CHECKING:
    from peft import PeftModel

LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
PROMPT_FILE = "prompt.txt"
"""In a base model's folder, UTF-8: what to say beside the photo, where that is not the project's own prompt."""
END_TOKEN = "<|im_end|>"
"""Ends what the Critic writes."""


@dataclass(frozen=True)
class Prompts:
    """Model inputs for B photos with the fixed prompt, left-padded to P tokens."""

    input_ids_BP: Tensor
    attention_mask_BP: Tensor
    mm_token_type_ids_BP: Tensor
    pixel_values: Tensor
    image_grid_thw_B3: Tensor

    def __getitem__(self, rows: Tensor) -> "Prompts":
        """The prompts of some photos, by their indices; an index may be repeated."""
        chunks = self.pixel_values.split(self.image_grid_thw_B3.prod(dim=1).tolist())
        return Prompts(
            self.input_ids_BP[rows],
            self.attention_mask_BP[rows],
            self.mm_token_type_ids_BP[rows],
            torch.cat([chunks[row] for row in rows.tolist()]),
            self.image_grid_thw_B3[rows],
        )

    def repeat(self, count: int) -> "Prompts":
        """Every photo `count` times in a row, as a group of completions needs it."""
        return self[torch.arange(len(self.input_ids_BP)).repeat_interleave(count)]


@dataclass(frozen=True)
class ReasoningLatent:
    """H_c: the last hidden states that condition the Artist, right-padded.

    Attributes:
        states_BLD: post-norm states of every prompt position and of every decoded position but the last.
        mask_BL: True where a position exists. Nothing that exists is masked.
    """

    states_BLD: Tensor
    mask_BL: Tensor

    def __getitem__(self, index: slice | Tensor) -> "ReasoningLatent":
        return ReasoningLatent(self.states_BLD[index], self.mask_BL[index])


@dataclass(frozen=True)
class CriticRollout:
    """Completions of a batch of photos, `group` in a row for each photo, with everything that training needs.

    Attributes:
        prompts: of the photos, one each.
        texts: B decoded completions.
        tokens_BT: completion tokens, the end token included, right-padded.
        token_mask_BT: True where a token exists.
        log_probabilities_BT: of the sampled tokens under the sampling distribution at temperature 1.
        latent: H_c, captured while generating.
    """

    prompts: Prompts
    texts: list[str]
    tokens_BT: Tensor
    token_mask_BT: Tensor
    log_probabilities_BT: Tensor
    latent: ReasoningLatent


class Critic:
    """The Image Critic f_c.

    Args:
        model: a Qwen2.5-VL, with or without a PEFT adapter.
        processor: its processor (tokenizer, image processor, chat template).
    """

    def __init__(self, model: "Qwen2_5_VLForConditionalGeneration | PeftModel", processor: Any, prompt: str = PROMPT):
        self.model, self.processor, self.prompt = model, processor, prompt
        self.gradient_checkpointing = False
        self.weights: Path | None = None  # that a stage trained instead of an adapter
        self.end_token = processor.tokenizer.convert_tokens_to_ids(END_TOKEN)
        self.pad_token = processor.tokenizer.pad_token_id
        self._placeholders = torch.tensor([model.config.image_token_id, model.config.video_token_id])

    @classmethod
    def load(
        cls,
        base: Path,
        adapter: Path | None = None,
        placement: Placement | None = None,
        trainable: bool = False,
        only_used: bool = False,
    ) -> "Critic":
        """Load `from_pretrained` directories: the base model and, when given, a PEFT adapter on top of it.

        Where the adapter's folder holds weights too (`components.models.weights`), those replace the base model's. A
        prompt that the base model was trained with elsewhere (`PROMPT_FILE`) goes before the project's own.

        Args:
            trainable: the adapter is to be trained.
            only_used: no adapter will be trained, saved or put beside this one, so it need not be PEFT's.
        """
        device, dtype = placement or Placement()
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=dtype).to(device).eval()
        weights = load_weights(model, adapter)
        if adapter is not None:
            model = put_adapter(model, adapter) if only_used else load_adapter(model, adapter, trainable)
        own = base / PROMPT_FILE
        prompt = own.read_text(encoding="utf-8").removesuffix("\n") if own.is_file() else PROMPT
        critic = cls(model, AutoProcessor.from_pretrained(base), prompt)
        critic.weights = weights
        return critic

    def add_adapter(self, settings: LoraSettings, seed: int = 0) -> None:
        """Put a fresh, trainable LoRA on the language model's projections (gaussian A, zero B)."""
        self.model = add_adapter(self.model, LORA_TARGETS, settings, seed)

    def save_adapter(self, out: Path) -> None:
        """Write the current PEFT adapter (`adapter_config.json`, `adapter_model.safetensors`) and trained weights."""
        save_adapter(self.model, out)
        save_weights(self.model, out, self.weights)

    def train_weights(self) -> None:
        """From now on train the weights of the language model's layers instead of the adapter."""
        train_weights(self.model, self.vision_language_model.model.language_model.layers)

    def trained_parameters(self) -> list[torch.nn.Parameter]:
        """Those that require a gradient."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def shard(self, device: torch.device, dtype: torch.dtype) -> None:
        """Share the model out among all ranks (`components.parallel.sharding`); it is moved to `device`."""
        model = self.vision_language_model
        tied = model.lm_head.weight is model.get_input_embeddings().weight
        shard(model.model, device, dtype, apart=() if tied else (model.get_input_embeddings(), model.lm_head))
        move_rest(model, device)

    def checkpoint_gradients(self) -> None:
        """From now on compute activations again in the backward pass instead of keeping them."""
        self.vision_language_model.gradient_checkpointing_enable({"use_reentrant": False})
        self.gradient_checkpointing = True

    def _set_mode(self) -> None:
        """transformers checkpoints in training mode only, and keeps no cache in it."""
        if self.gradient_checkpointing:
            self.vision_language_model.model.train(torch.is_grad_enabled())

    @property
    def vision_language_model(self) -> Qwen2_5_VLForConditionalGeneration:
        """The transformers model beneath a possible PEFT wrapper."""
        return without_adapter(self.model)

    @property
    def device(self) -> torch.device:
        return self.vision_language_model.device

    def prompts(self, images: Sequence[Tensor], instructions: Sequence[str] | None = None) -> Prompts:
        """Model inputs for photos (3, H, W) in [0, 1], each of any size.

        Args:
            instructions: what to say beside each photo instead of the Critic's fixed prompt.
        """
        template = partial(self.processor.apply_chat_template, add_generation_prompt=True, tokenize=False)
        texts = [template(conversation(words)) for words in instructions or [self.prompt] * len(images)]
        pictures = [(image.clamp(0, 1) * 255).round().to(torch.uint8) for image in images]
        batch = self.processor(text=texts, images=pictures, padding=True, padding_side="left", return_tensors="pt").to(
            self.device
        )
        return Prompts(
            batch["input_ids"],
            batch["attention_mask"],
            batch["mm_token_type_ids"],
            batch["pixel_values"],
            batch["image_grid_thw"],
        )

    def encode_completions(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) of completions with the end token appended, right-padded, and their mask (B, T)."""
        rows = [[*self.processor.tokenizer.encode(text), self.end_token] for text in texts]
        length = max(map(len, rows))
        tokens = [row + [self.pad_token] * (length - len(row)) for row in rows]
        mask = [[True] * len(row) + [False] * (length - len(row)) for row in rows]
        return torch.tensor(tokens, device=self.device), torch.tensor(mask, device=self.device)

    def forward(self, prompts: Prompts, tokens_BT: Tensor, token_mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """One teacher-forced pass.

        Returns:
            hidden states (B, P + T, D) of every position, and the logits (B, T, V) that predict the completion.
        """
        prompt_length = prompts.input_ids_BP.shape[1]
        input_ids = torch.cat([prompts.input_ids_BP, tokens_BT], dim=1)
        attention_mask = torch.cat([prompts.attention_mask_BP, token_mask_BT.long()], dim=1)
        types = torch.cat([prompts.mm_token_type_ids_BP, torch.zeros_like(tokens_BT)], dim=1)
        backbone = self.vision_language_model.model
        self._set_mode()
        position_ids, _ = backbone.get_rope_index(
            input_ids, types, image_grid_thw=prompts.image_grid_thw_B3, attention_mask=attention_mask
        )
        hidden = backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            pixel_values=prompts.pixel_values,
            image_grid_thw=prompts.image_grid_thw_B3,
            use_cache=False,
        ).last_hidden_state
        return hidden, self._logits(hidden[:, prompt_length - 1 : -1])

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of what comes next; never a picture's placeholder, or a later pass would seek a picture."""
        logits = self.vision_language_model.lm_head(hidden)
        return logits.index_fill(-1, self._placeholders.to(logits.device), torch.finfo(logits.dtype).min)

    def log_probabilities(self, prompts: Prompts, tokens_BT: Tensor, token_mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, T) of completion tokens and the entropy (B, T) of the distributions they came from.

        The entropy is there to be looked at: no gradient flows through it, so nothing of its size (B, T, V) is kept.
        """
        _, logits = self.forward(prompts, tokens_BT, token_mask_BT)
        log_p = logits.float().log_softmax(dim=-1)
        entropy = torch.stack([-(row.exp() * row).sum(dim=-1) for row in log_p.detach()])
        return log_p.gather(-1, tokens_BT[..., None])[..., 0], entropy

    @torch.no_grad()
    def latent(self, prompts: Prompts, tokens_BT: Tensor, token_mask_BT: Tensor) -> ReasoningLatent:
        """H_c of given completions by one teacher-forced pass over prompt + completion[:-1]."""
        hidden, _ = self.forward(prompts, tokens_BT, token_mask_BT)
        return _compact(hidden[:, :-1], prompts.attention_mask_BP, token_mask_BT)

    @torch.no_grad()
    def instruction_latent(self, images: Sequence[Tensor], instructions: Sequence[str]) -> ReasoningLatent:
        """Hidden states of photo and instruction alone: what conditions the Artist on a task prompt in stage I."""
        prompts = self.prompts(images, instructions)
        nothing = torch.full((len(images), 1), self.pad_token, device=self.device)
        hidden, _ = self.forward(prompts, nothing, torch.ones_like(nothing, dtype=torch.bool))
        return _compact(hidden[:, :-1], prompts.attention_mask_BP, torch.ones_like(nothing, dtype=torch.bool))

    @torch.no_grad()
    def generate(
        self,
        images: Sequence[Tensor],
        group: int = 1,
        temperature: float = 0.0,
        max_new_tokens: int = 200,
        generator: torch.Generator | None = None,
        share: Share | None = None,
        repetition_penalty: float = 1.0,
    ) -> CriticRollout:
        """Write `group` completions for every photo, capturing H_c on the way.

        Args:
            images: photos (3, H, W) in [0, 1].
            temperature: 0 is greedy decoding; otherwise samples are drawn with `generator`.
            max_new_tokens: a completion that has not ended by then is cut.
            share: says which of a larger batch's photos these are, when ranks write at the same time. Samples are then
                those that the whole batch would get, and a rank goes on until the last one has ended.
            repetition_penalty: by which the logits of tokens that the prompt or the completion holds already are
                divided where they are positive, and multiplied where they are negative (Keskar et al. 2019, CTRL, in
                the form of transformers). It decides which token is taken; the log-probabilities are those without.

        Raises:
            ValueError: sampling without a generator.
        """
        if temperature > 0 and generator is None:
            raise ValueError("sampling needs a torch.Generator: pass generator=, or temperature=0 for greedy decoding")
        generator = generator and generator_on(self.device, generator)
        rows = share.each(group) if share is not None and not share.whole else None
        prompts = self.prompts(images)
        self._set_mode()
        model, backbone = self.vision_language_model, self.vision_language_model.model
        position_ids, deltas = backbone.get_rope_index(
            prompts.input_ids_BP,
            prompts.mm_token_type_ids_BP,
            image_grid_thw=prompts.image_grid_thw_B3,
            attention_mask=prompts.attention_mask_BP,
        )
        cache = DynamicCache(config=model.config.get_text_config())
        hidden = backbone(
            input_ids=prompts.input_ids_BP,
            attention_mask=prompts.attention_mask_BP,
            position_ids=position_ids,
            pixel_values=prompts.pixel_values,
            image_grid_thw=prompts.image_grid_thw_B3,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        if group > 1:
            cache.batch_repeat_interleave(group)
        hidden, mask = hidden.repeat_interleave(group, 0), prompts.attention_mask_BP.repeat_interleave(group, 0)
        next_position = (prompts.attention_mask_BP.sum(1, keepdim=True) + deltas).repeat_interleave(group, 0)
        states, tokens, log_probabilities, masks = [hidden], [], [], []
        live = torch.ones(len(hidden), dtype=torch.bool, device=self.device)
        written = prompts.input_ids_BP.repeat_interleave(group, 0)
        with quick_adapters(self.model), torch.inference_mode():  # little beside bookkeeping in so small a pass
            for _ in range(max_new_tokens):
                logits = self._logits(states[-1][:, -1]).float()
                log_p = logits.log_softmax(dim=-1)
                scores = log_p if repetition_penalty == 1 else _penalised(logits, written, repetition_penalty)
                token = _draw(scores, temperature, generator, rows)
                token = torch.where(live, token, self.pad_token)
                written = torch.cat((written, token[:, None]), dim=1)
                tokens.append(token)
                log_probabilities.append(log_p.gather(1, token[:, None])[:, 0])
                masks.append(live)
                live = live & (token != self.end_token)
                if not (live.any() if rows is None else all_reduce_max(int(live.any()))):
                    break
                mask = torch.cat([mask, masks[-1][:, None].long()], dim=1)
                states.append(
                    backbone(
                        input_ids=token[:, None],
                        attention_mask=mask,
                        position_ids=next_position[None].expand(3, -1, -1),
                        past_key_values=cache,
                        use_cache=True,
                    ).last_hidden_state
                )
                next_position = next_position + 1
        mask_BT = torch.stack(masks, dim=1)
        length = int(mask_BT.any(dim=0).sum())  # shorter than what was written where other ranks went on
        tokens_BT, mask_BT = torch.stack(tokens[:length], dim=1), mask_BT[:, :length]
        decoded = [row[keep & (row != self.end_token)] for row, keep in zip(tokens_BT, mask_BT, strict=True)]
        latent = _compact(
            torch.cat(states, dim=1)[:, : hidden.shape[1] + length - 1],
            prompts.attention_mask_BP.repeat_interleave(group, 0),
            mask_BT,
        )
        log_p_BT = torch.stack(log_probabilities[:length], dim=1).masked_fill(~mask_BT, 0.0)
        texts = self.processor.tokenizer.batch_decode(decoded)
        return CriticRollout(prompts, texts, tokens_BT, mask_BT, log_p_BT, latent)


def _penalised(logits: Tensor, written: Tensor, penalty: float) -> Tensor:
    """Logits (B, V) after the repetition penalty for the tokens ``written`` (B, L)."""
    found = logits.gather(1, written)
    return logits.scatter(1, written, torch.where(found < 0, found * penalty, found / penalty))


def _draw(scores: Tensor, temperature: float, generator: torch.Generator | None, rows: Share | None) -> Tensor:
    """Tokens (B,) by their log-probabilities or logits (B, V); `rows` says which of a larger batch's they are, when not
    all of them."""
    if temperature == 0:
        return scores.argmax(dim=-1)
    p = (scores / temperature).softmax(dim=-1)
    if rows is None:
        return torch.multinomial(p, 1, generator=generator)[:, 0]
    # the exponential sampling inside `multinomial`, with noise for all rows so that each row gets its own
    noise = p.new_empty(rows.total, p.shape[-1]).exponential_(generator=generator)
    return (p / rows.of(noise)).argmax(dim=-1)


def _compact(states: Tensor, prompt_mask: Tensor, token_mask: Tensor) -> ReasoningLatent:
    """Drop padding from (B, P + T - 1, D): the prompt's on the left, the completion's on the right."""
    lengths = token_mask.sum(dim=1, keepdim=True)
    kept = torch.arange(token_mask.shape[1] - 1, device=states.device) < lengths - 1
    keep = torch.cat([prompt_mask.bool(), kept], dim=1)
    rows = [row[chosen] for row, chosen in zip(states, keep, strict=True)]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.arange(padded.shape[1], device=states.device) < keep.sum(dim=1, keepdim=True)
    return ReasoningLatent(padded, mask)
