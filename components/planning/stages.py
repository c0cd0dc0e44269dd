"""What each stage of a profile computes and holds on one GPU, as numbers that do not depend on the GPU.

Batches and rounds are divided among the GPUs by the functions by which the stages divide them; each GPU works through
its share as the stage's code does: in parts of `micro_batch`, edits in parts of `edit_batch`, everything at once where
they are not set. Where a text's length is not known, its longest is taken.
"""

import math
from dataclasses import dataclass, replace

from components.models.artist import Artist, Grid
from components.models.flops import (
    autoencoder_flops,
    decoding_flops,
    key_value_bytes,
    language_model_flops,
    transformer_flops,
    vision_flops,
)
from components.models.lora import LoraSettings
from components.parallel.ranks import enough_rows, largest_share
from components.planning.memory import Tracer
from components.planning.settings import Workload
from components.reinforcement.dealing import deal
from components.settings import Settings
from components.training.artist_sft import ArtistSftSettings
from components.training.critic_sft import validation_batch

Look = tuple[int, int]
"""Patches of a picture before they are merged, and the length of the prompt with it."""
STAGES = ("train_critic", "train_artist", "adapt_artist", "reinforce")


@dataclass(frozen=True)
class Phase:
    """A part of a step during which memory is held beside the models.

    Attributes:
        rows: samples that are worked on at once.
        kept: bytes per row that autograd keeps, or that stay for later phases.
        workspace: bytes per row that the busiest moment needs beyond that.
        cache: bytes of key-value cache, all rows together.
    """

    name: str
    rows: int
    kept: int
    workspace: int
    cache: int = 0

    @property
    def bytes(self) -> int:
        return self.rows * (self.kept + self.workspace) + self.cache


@dataclass(frozen=True)
class Work:
    """What the busiest GPU does in one optimiser step (in stage III: one iteration).

    Attributes:
        steps: of the whole stage.
        samples: photos of a step, in all GPUs together.
        flops: operations of passes that are limited by arithmetic.
        critic_passes, artist_passes: times that all weights of a model are used, outside of decoding.
        decoding_steps: token steps of the Critic's decoding, which read all weights and caches each.
        decoding_flops: operations of all of them.
        decoding_cache: bytes of cache that a token step reads, on average.
    """

    steps: int
    samples: int
    flops: int
    critic_passes: int
    artist_passes: int
    decoding_steps: int = 0
    decoding_flops: int = 0
    decoding_cache: int = 0

    def times(self, count: int) -> "Work":
        """So many of these steps one after another, as one."""
        return replace(
            self,
            flops=count * self.flops,
            critic_passes=count * self.critic_passes,
            artist_passes=count * self.artist_passes,
            decoding_steps=count * self.decoding_steps,
            decoding_flops=count * self.decoding_flops,
        )


@dataclass(frozen=True)
class Stage:
    """One stage: which models and adapters it holds, its phases and its work.

    Attributes:
        critic, artist: number of adapters that the model has; None where it is not loaded.
        trained: names of the models whose adapters are trained.
        average: a moving average of the trained adapter is kept.
        validation: one validation of the most held-out samples there may be; its `steps` are the validations.
    """

    name: str
    critic: int | None
    artist: int | None
    trained: tuple[str, ...]
    average: bool
    phases: tuple[Phase, ...]
    work: Work
    validation: Work


class StagePlanner:
    """Derives the stages of a profile for a number of GPUs, with or without gradient checkpointing."""

    def __init__(self, settings: Settings, tracer: Tracer, artist: Artist, workload: Workload, gpus: int):
        self.settings, self.tracer, self.workload, self.gpus = settings, tracer, workload, gpus
        configurations = tracer.configurations
        self.text, self.vision = configurations.critic["text_config"], configurations.critic["vision_config"]
        self.size = artist.working_size(1000, round(1000 * workload.aspect))
        self.grid = Grid(*(side // artist.pixels_per_token for side in self.size))
        self.encoding, self.decoding = autoencoder_flops(artist.vae, *self.size)
        self.patches, self.prompt = self._look(settings.synthesize.short_side)

    def stage(self, name: str, checkpointing: bool) -> Stage:
        """One of `STAGES`."""
        return getattr(self, name)(checkpointing)

    def train_critic(self, checkpointing: bool) -> Stage:
        settings = self.settings.train_critic
        rows, lora = self._share("train_critic.batch_size", settings.batch_size), settings.lora
        completion = self.workload.completion_tokens
        patches, prompt = self._look(self.settings.annotate.short_side)
        tokens, at_once = prompt + completion, min(rows, settings.micro_batch or rows)
        held = self.tracer.language_model(tokens, completion, lora, "cross_entropy", checkpointing)
        one = language_model_flops(self.text, tokens, completion, lora.rank)
        flops = one.training(checkpointing)
        batch = validation_batch(settings, self.gpus)
        held_out = largest_share(self.gpus, batch)
        writing, read, decoding = self._writing(held_out, held_out, settings.max_new_tokens, lora, (patches, prompt))
        validation = Work(
            1,
            settings.held_out.samples,
            read + held_out * (vision_flops(self.vision, patches) + one.forward),
            critic_passes=2,
            artist_passes=0,
            **decoding,
        )
        return Stage(
            "train_critic",
            critic=1,
            artist=None,
            trained=("critic",),
            average=settings.optimiser.ema_decay > 0,
            phases=(
                Phase("vision tower", at_once, 0, self.tracer.vision_bytes(patches)),
                Phase("forward and backward", at_once, held.kept, held.workspace),
                *(replace(phase, name=f"{phase.name} of a validation") for phase in writing),
            ),
            work=Work(
                settings.optimiser.steps,
                settings.batch_size,
                rows * (vision_flops(self.vision, patches) + flops),
                critic_passes=math.ceil(rows / at_once) * (2 + checkpointing),
                artist_passes=0,
            ),
            validation=validation.times(math.ceil(settings.held_out.samples / batch)),
        )

    def train_artist(self, checkpointing: bool) -> Stage:
        settings = self.settings.train_artist
        rows = self._share("train_artist.batch_size", settings.batch_size)
        prompt, read = self._reading(rows, settings.lora)
        return self._flow_matching(
            "train_artist", 0, settings, checkpointing, rows, self.prompt, (prompt,), rows * read, {}
        )

    def adapt_artist(self, checkpointing: bool) -> Stage:
        settings = self.settings.adapt_artist
        rows = self._share("adapt_artist.batch_size", settings.batch_size)
        completion = settings.max_new_tokens
        writing, read, decoding = self._writing(rows, rows, completion, settings.lora)
        length = self.prompt + completion - 1
        return self._flow_matching("adapt_artist", 1, settings, checkpointing, rows, length, writing, read, decoding)

    def reinforce(self, checkpointing: bool) -> Stage:
        settings, rollouts = self.settings.reinforce, self.settings.reinforce.rollouts
        critic_lora, artist_lora = self.settings.train_critic.lora, self.settings.adapt_artist.lora
        photos, completion = self._share("reinforce.rollouts.photos", rollouts.photos), rollouts.max_new_tokens
        pictures, verdicts = 2 * photos, 2 * photos * rollouts.verdicts
        edits = photos * rollouts.verdicts * rollouts.edits
        tokens, length = self.prompt + completion, self.prompt + completion - 1
        writing, flops, decoding = self._writing(pictures, verdicts, completion, critic_lora)

        drawing = self.tracer.transformer(self.grid, length, artist_lora, backward=False)
        one_edit = transformer_flops(self.tracer.configurations.transformer, 2 * self.grid.tokens, length, 0)
        policy = self.tracer.language_model(tokens, completion, critic_lora, "policy", checkpointing)
        updating = self.tracer.transformer(self.grid, length, artist_lora, checkpointing)
        made = rollouts.photos * rollouts.verdicts * rollouts.edits  # by all GPUs
        dealt = deal(made, settings.artist_updates, settings.nft.timesteps, settings.micro_batch, self.gpus)
        chunk = min(settings.micro_batch, verdicts), min(settings.micro_batch, made)
        at_once = min(edits, rollouts.edit_batch or edits)
        encode, decode = (self.tracer.autoencoder(*self.size, decode=decode) for decode in (False, True))
        phases = (
            *writing,
            Phase("encode photos", min(photos, at_once), 0, encode.peak),
            Phase("draw edits", at_once, 0, drawing.peak),
            Phase("decode edits", at_once, 0, decode.peak),
            Phase("update Critic", chunk[0], policy.kept, policy.workspace),
            Phase("update Artist", chunk[1], updating.kept, updating.workspace),
        )
        critic = language_model_flops(self.text, tokens, completion, critic_lora.rank)
        critic_update = 2 * vision_flops(self.vision, self.patches) + critic.training(checkpointing)
        critic_update += critic.forward if settings.grpo.kl > 0 else 0
        artist = transformer_flops(
            self.tracer.configurations.transformer, 2 * self.grid.tokens, length, artist_lora.rank
        )
        reference = settings.reference_share if settings.nft.kl > 0 else 0
        artist_update = artist.training(checkpointing) + round((1 + reference) * artist.forward)
        flops += photos * self.encoding + edits * (rollouts.sampling_steps * one_edit.forward + self.decoding)
        flops += settings.critic_updates * verdicts * critic_update
        flops += dealt.busiest_rows * artist_update
        passes = dealt.busiest * (3 + checkpointing)
        comparison = settings.comparison
        held_out = largest_share(self.gpus, comparison.batch_size)
        _, read, written = self._writing(held_out, held_out, completion, critic_lora)
        drawn = held_out * comparison.draws
        validation = Work(
            2 + (settings.iterations - 1) // settings.validate_every,  # the first one is before all iterations
            comparison.held_out.samples,
            read + drawn * (self.encoding + rollouts.sampling_steps * one_edit.forward + self.decoding),
            critic_passes=1,
            artist_passes=math.ceil(drawn / at_once) * rollouts.sampling_steps,
            **written,
        )
        return Stage(
            "reinforce",
            critic=2,  # trained, and reference
            artist=3,  # trained, rollout policy, and reference
            trained=("critic", "artist"),
            average=False,
            phases=phases,
            work=Work(
                settings.iterations,
                rollouts.photos,
                flops,
                critic_passes=1 + settings.critic_updates * math.ceil(verdicts / chunk[0]) * (3 + checkpointing),
                artist_passes=math.ceil(edits / at_once) * rollouts.sampling_steps + passes,
                **decoding,
            ),
            validation=validation.times(math.ceil(comparison.held_out.samples / comparison.batch_size)),
        )

    def _flow_matching(
        self,
        name: str,
        critic_adapters: int,
        settings: ArtistSftSettings,
        checkpointing: bool,
        rows: int,
        text_tokens: int,
        before: tuple[Phase, ...],
        flops: int,
        decoding: dict[str, int],
    ) -> Stage:
        """A stage of supervised flow matching, after phases in which the Critic makes the conditioning."""
        lora, at_once = settings.lora, min(rows, settings.micro_batch or rows)
        held = self.tracer.transformer(self.grid, text_tokens, lora, checkpointing)
        encode = self.tracer.autoencoder(*self.size, decode=False)
        config = self.tracer.configurations.transformer
        one = transformer_flops(config, 2 * self.grid.tokens, text_tokens, lora.rank)
        work = Work(
            settings.optimiser.steps,
            settings.batch_size,
            flops + rows * (2 * self.encoding + one.training(checkpointing)),
            critic_passes=1,
            artist_passes=math.ceil(rows / at_once) * (2 + checkpointing),
            **decoding,
        )
        validation = replace(
            work,
            steps=1,
            samples=settings.held_out.samples,
            flops=flops + rows * (2 * self.encoding + one.forward),
            artist_passes=math.ceil(rows / at_once),
        )
        return Stage(
            name,
            critic=critic_adapters,
            artist=1,
            trained=("artist",),
            average=settings.optimiser.ema_decay > 0,
            phases=(
                *before,
                Phase("encode photos", at_once, 0, encode.peak),
                Phase("forward and backward", at_once, held.kept, held.workspace),
            ),
            work=work,
            validation=validation.times(math.ceil(settings.held_out.samples / settings.batch_size)),
        )

    def _reading(self, rows: int, lora: LoraSettings, look: Look | None = None) -> tuple[Phase, int]:
        """The Critic reads prompts: memory of the phase, and operations per row."""
        patches, prompt = look or (self.patches, self.prompt)
        read = self.tracer.language_model(prompt, 1, lora, backward=False)
        workspace = max(read.peak, self.tracer.vision_bytes(patches))
        flops = vision_flops(self.vision, patches) + language_model_flops(self.text, prompt, 1, 0).forward
        return Phase("read photos", rows, 0, workspace), flops

    def _writing(
        self, pictures: int, rows: int, completion: int, lora: LoraSettings, look: Look | None = None
    ) -> tuple[tuple[Phase, Phase], int, dict[str, int]]:
        """The Critic reads `pictures` and writes `rows` completions: phases, operations of reading, and decoding.

        Args:
            look: of the pictures; by default that of pairs.
        """
        reading, flops = self._reading(pictures, lora, look)
        _, prompt = look or (self.patches, self.prompt)
        position = key_value_bytes(self.text, self.tracer.dtype.itemsize)
        longest = prompt + completion
        latent = 2 * longest * self.text["hidden_size"] * self.tracer.dtype.itemsize  # the pieces and the whole
        writing = Phase("write verdicts", rows, 0, latent, cache=rows * longest * position)
        decoding = {
            "decoding_steps": completion - 1,
            "decoding_flops": rows * decoding_flops(self.text, prompt, completion, lora.rank),
            "decoding_cache": rows * (prompt + completion // 2) * position,
        }
        return (reading, writing), pictures * flops, decoding

    def _look(self, short_side: int) -> Look:
        """Patches of a photo of this size before they are merged, and the length of the prompt with it."""
        merge = self.vision["spatial_merge_size"]
        sides = short_side, round(short_side * self.workload.aspect)
        tokens = math.prod(max(1, round(side / (self.vision["patch_size"] * merge))) for side in sides)
        return tokens * merge**2, tokens + self.workload.prompt_tokens

    def _share(self, setting: str, count: int) -> int:
        """Samples of the busiest GPU.

        Raises:
            ValueError: there are fewer samples than GPUs, which the stage refuses.
        """
        enough_rows(setting, count, self.gpus)
        return largest_share(self.gpus, count)
