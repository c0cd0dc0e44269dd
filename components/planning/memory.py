"""Memory that a sample takes in each kind of pass, found by tracing models of one and two layers.

What autograd keeps grows by the same amount with every layer, and what the busiest moment needs beyond that does not
depend on depth, so two shallow models of full width tell the footprint of any depth.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.models.artist import Grid
from components.models.flow import flow_matching_loss
from components.models.lora import LoraSettings
from components.models.published import Configurations, build_critic, build_transformer, build_vae
from components.planning.tracing import Footprint, footprint

CriticLoss = Literal["cross_entropy", "policy"]


@dataclass
class Tracer:
    """Footprints of single samples for given models; what was traced once is remembered.

    Attributes:
        configurations: of the models.
        dtype: of the frozen weights, and so of most activations.
    """

    configurations: Configurations
    dtype: torch.dtype = torch.bfloat16
    _known: dict[tuple[object, ...], Footprint] = field(default_factory=dict)

    def transformer(
        self, grid: Grid, text_tokens: int, lora: LoraSettings, checkpointing: bool = False, backward: bool = True
    ) -> Footprint:
        """One edit through the Artist's transformer, with its loss when `backward` is on."""
        config = self.configurations.transformer

        def build(depth: int) -> Any:
            model: Any = build_transformer(self._with(transformer={**config, "num_layers": depth}), lora)
            if checkpointing:
                model.get_base_model().enable_gradient_checkpointing()
            return model

        def run(model: Any) -> Tensor:
            noisy, source = torch.empty(2, 1, grid.tokens, config["in_channels"])
            states = torch.empty(1, text_tokens, config["joint_attention_dim"])
            shape = (1, grid.height, grid.width)
            velocity = model(
                hidden_states=torch.cat([noisy, source], dim=1).to(self.dtype),
                encoder_hidden_states=states.to(self.dtype),
                timestep=torch.empty(1, dtype=self.dtype),
                img_shapes=[[shape, shape]],
                return_dict=False,
            )[0][:, : grid.tokens].float()
            return flow_matching_loss(velocity, noisy, source).mean()

        key = ("transformer", grid, text_tokens, lora, checkpointing, backward)
        return self._deep(key, build, run, config["num_layers"], backward)

    def language_model(
        self,
        tokens: int,
        logits: int,
        lora: LoraSettings,
        loss: CriticLoss = "cross_entropy",
        checkpointing: bool = False,
        backward: bool = True,
    ) -> Footprint:
        """One sequence through the Critic's language model, with its loss when `backward` is on.

        Args:
            tokens: length of the sequence.
            logits: positions whose next token is predicted: the completion, or one when only the prompt is read.
        """
        config = self.configurations.critic["text_config"]

        def build(depth: int) -> nn.Module:
            text = {**config, "num_hidden_layers": depth}
            text.pop("layer_types", None)
            vision = {**self.configurations.critic["vision_config"], "depth": 1, "fullatt_block_indexes": [0]}
            model: Any = build_critic(
                self._with(critic={**self.configurations.critic, "text_config": text, "vision_config": vision}), lora
            )
            if checkpointing:
                model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
            return model.train(checkpointing)

        def run(model: Any) -> Tensor:
            base = model.get_base_model()
            hidden = base.model.language_model(
                inputs_embeds=torch.empty(1, tokens, config["hidden_size"], dtype=self.dtype),
                attention_mask={"full_attention": torch.empty(1, 1, tokens, tokens, dtype=torch.bool)},
                position_ids=torch.zeros(3, 1, tokens, dtype=torch.long),
                use_cache=False,
            ).last_hidden_state
            scores = base.lm_head(hidden[:, -logits:])
            scores = scores.index_fill(-1, torch.zeros(2, dtype=torch.long), torch.finfo(scores.dtype).min)
            return _LOSSES[loss](scores, torch.zeros(1, logits, dtype=torch.long))

        key = ("language model", tokens, logits, lora, loss, checkpointing, backward)
        return self._deep(key, build, run, config["num_hidden_layers"], backward)

    def autoencoder(self, height: int, width: int, decode: bool) -> Footprint:
        """One picture through the frozen autoencoder, to latents or back."""
        side = 2 ** len(self.configurations.vae["temperal_downsample"])

        def run(model: Any) -> Tensor:
            if decode:
                shape = (1, self.configurations.vae["z_dim"], 1, height // side, width // side)
                return model.decode(torch.empty(shape, dtype=self.dtype)).sample.float()
            return model.encode(torch.empty(1, 3, 1, height, width, dtype=self.dtype)).latent_dist.mode().float()

        key = ("autoencoder", height, width, decode)
        if key not in self._known:
            self._known[key] = footprint(lambda: build_vae(self.configurations), run, self.dtype, backward=False)
        return self._known[key]

    def vision_bytes(self, patches: int) -> int:
        """About what the frozen vision tower holds for one picture, in its attention: residual, queries, keys and
        values, and queries and keys in float32 before and after their rotation."""
        width = self.configurations.critic["vision_config"]["hidden_size"]
        return patches * width * (4 * self.dtype.itemsize + 4 * torch.float32.itemsize)

    def _with(self, **changes: Any) -> Configurations:
        return replace(self.configurations, **changes)

    def _deep(
        self,
        key: tuple[object, ...],
        build: Callable[[int], nn.Module],
        run: Callable[[nn.Module], Tensor],
        layers: int,
        backward: bool,
    ) -> Footprint:
        if key not in self._known:
            one, two = (footprint(partial(build, depth), run, self.dtype, backward) for depth in (1, 2))
            kept = one.kept + (layers - 1) * (two.kept - one.kept)
            self._known[key] = Footprint(kept, kept + two.workspace)
        return self._known[key]


def _cross_entropy(scores: Tensor, tokens: Tensor) -> Tensor:
    """As `components.training.critic_sft` computes it."""
    chosen = scores.flatten(0, 1).clone().float()
    return functional.cross_entropy(chosen, tokens.flatten(), reduction="none").mean()


def _policy(scores: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities and entropy as `components.models.critic` computes them."""
    log_p = scores.float().log_softmax(dim=-1)
    entropy = torch.stack([-(row.exp() * row).sum(dim=-1) for row in log_p.detach()])
    return log_p.gather(-1, tokens[..., None])[..., 0].mean() + 0 * entropy.mean()


_LOSSES = {"cross_entropy": _cross_entropy, "policy": _policy}
