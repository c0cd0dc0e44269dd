"""Stage III: GRPO for the Critic and DiffusionNFT for the Artist in one loop over the same photos.

Each iteration samples verdicts and edits, rewards them, turns rewards into advantages and updates both modules; then
the Artist's `old` policy, which makes the edits, follows the current one. One checkpoint holds everything both need to
go on.
"""

import logging
from pathlib import Path

import torch
from tqdm import tqdm

from components.metrics.full_reference import LPIPS_FILE, Lpips
from components.models.artist import Artist
from components.models.critic import Critic
from components.models.lora import copy_adapter
from components.parallel.ranks import enough_rows, is_main, world_size
from components.parallel.sharding import like, on_main
from components.reinforcement.alarm import HackingAlarm
from components.reinforcement.artist_update import ArtistUpdate
from components.reinforcement.comparison import log_policy, score_policy
from components.reinforcement.critic_update import CriticUpdate
from components.reinforcement.judges.settings import journal_in, make_judge
from components.reinforcement.policy_statistics import AdapterDrift
from components.reinforcement.rollouts import reward, sample
from components.reinforcement.settings import ReinforceSettings
from components.training.batches import PairBatches
from components.training.checkpoints import Checkpoint, CheckpointStore
from components.training.observer import Observer
from components.training.passes import metered
from components.training.tracker import Tracker

log = logging.getLogger(__name__)
_VITAL = ("loss", "reward", "reward_total", "kl", "gradient_norm", "learning_rate")  # what a diagnosis shows


def reinforce(
    base: Path,
    critic_adapter: Path,
    artist_adapter: Path,
    pairs_dir: Path,
    out: Path,
    settings: ReinforceSettings,
    tracker: Tracker,
    checkpoints: Path,
) -> dict[str, float]:
    """Reinforce both modules on enhancement pairs; writes PEFT adapters to `out/critic` and `out/artist`.

    Args:
        base: folder of the base models and of the LPIPS backbone.
        critic_adapter, artist_adapter: where stages I and II ended; also the reference policies.
        checkpoints: folder that outlives the process; a run that was killed continues from there.

    Returns:
        closing metrics of the validation split.

    Raises:
        DivergenceError: a loss, gradient or reward is not finite, or a loss stayed out of its range.
        RewardHackingError: `settings.alarm` is "stop", and it was raised.
        JudgeError: the judge `mllm` gave no judgement.
    """
    _check(settings)
    store = CheckpointStore(checkpoints)
    critic, artist = load_modules(base, critic_adapter, artist_adapter, settings)
    generator = torch.Generator().manual_seed(settings.seed)
    critic_update, artist_update = CriticUpdate(critic, settings), ArtistUpdate(artist, settings, generator)
    photos = PairBatches(pairs_dir, "train", ["enhancement"], artist, settings.loading)
    held_out = PairBatches(
        pairs_dir, "validation", ["enhancement"], artist, settings.loading, settings.comparison.held_out
    )
    distance = Lpips(base / LPIPS_FILE, artist.device)
    judge = make_judge(settings.rollouts.judge, settings.rollouts.artist, journal_in(checkpoints))
    observer = Observer(
        "stage III",
        settings.observer,
        critic_update.optimiser.parameters | artist_update.optimiser.parameters,
        store,
    )
    meter = metered(settings.rollouts.photos, critic, artist)
    meter.watch(lambda: photos.loader.waited)
    if meter.hardware is not None:
        tracker.hardware(*meter.hardware)
    drift = {"critic": AdapterDrift(critic.model), "artist": AdapterDrift(artist.transformer)}
    alarm = HackingAlarm(settings.alarm, settings.alarm_rule)
    state = _State(store, critic_update, artist_update, generator, alarm)

    def validate(after: int) -> dict[str, float]:
        """Rewards on held-out photos, and what they do not pay for, over which the alarm on reward hacking watches."""
        scores = score_policy(
            critic,
            artist,
            held_out,
            distance,
            settings.rollouts,
            settings.comparison,
            judge,
            progress=lambda: observer.watchdog.progress(f"a batch of the validation after iteration {after}"),
        )
        means = log_policy(scores, tracker, "reinforce/validation", after)
        return means | alarm.watch(after, scores, tracker, store)

    with observer:
        done = state.restore()
        if done == 0:
            validate(0)
        else:
            log.info("stage III: resuming at iteration %d of %d", done, settings.iterations)
        for iteration in (progress := _progress(done, settings.iterations)):
            during = f"iteration {iteration + 1}, "
            with meter.measuring():
                with observer.during(f"{during}gathering experience"):
                    batch = photos.draw(settings.rollouts.photos, generator)
                    samples = sample(critic, artist, batch, settings.rollouts, generator)
                    experience = reward(samples, batch, distance, judge, settings.rollouts)
                completions, edits = experience.critic, experience.artist
                with observer.during(f"{during}updating the Critic"):
                    rewards = critic_update.rewards(completions, edits)
                    advantages, informative = critic_update.advantages(rewards)
                    about_critic = critic_update.report(completions, edits, rewards, informative)
                    about_critic |= critic_update.learn(completions, advantages, informative, iteration)
                with observer.during(f"{during}updating the Artist"):
                    advantages, informative = artist_update.advantages(edits)
                    about_artist = artist_update.report(edits, advantages, informative)
                    about_artist |= artist_update.learn(edits, advantages, informative, iteration)
                if iteration + 1 < settings.iterations:
                    photos.expect(settings.rollouts.photos, generator)  # of which this round draws no more
                about_artist |= artist_update.let_old_follow(iteration)
            report = _report(critic=about_critic, artist=about_artist)
            report |= _report(**{module: of_module.measure() for module, of_module in drift.items()})
            report |= _report(throughput=meter.report())
            tracker.metrics({f"reinforce/{name}": value for name, value in report.items()}, iteration + 1)
            progress.set_postfix(r_pa=f"{report['artist/reward_total']:.3f}", critic=f"{report['critic/reward']:.3f}")
            vital = {name: value for name, value in report.items() if name.endswith(_VITAL)}
            observer.finished(iteration + 1, vital, losses=("critic/loss", "artist/loss"))
            last = iteration + 1 == settings.iterations
            if (iteration + 1) % settings.validate_every == 0 and not last:
                validate(iteration + 1)  # before the checkpoint, which keeps what the alarm has seen
            if ((iteration + 1) % settings.checkpoint_every == 0 and not observer.suspicious) or last:
                state.save(iteration + 1)
        for update in (critic_update, artist_update):
            update.optimiser.use_average()
        closing = validate(settings.iterations)
    critic.save_adapter(out / "critic")
    artist.save_adapter(out / "artist")
    return closing


class _State:
    """What a stage that goes on must find as it was: one checkpoint holds it all."""

    def __init__(
        self,
        store: CheckpointStore,
        critic: CriticUpdate,
        artist: ArtistUpdate,
        generator: torch.Generator,
        alarm: HackingAlarm,
    ):
        self.store, self.critic, self.artist, self.generator, self.alarm = store, critic, artist, generator, alarm

    def save(self, iteration: int) -> None:
        """Keep the state after an iteration."""
        tensors = self.critic.optimiser.tensors("critic.") | self.artist.optimiser.tensors("artist.")
        tensors |= {f"old.{name}": on_main(tensor) for name, tensor in self.artist.old.items()}
        tensors["generator"] = self.generator.get_state()
        values = {"old_is_current": self.artist.old_is_current, "validations": self.alarm.history}
        self.store.save(Checkpoint(iteration, tensors, values))

    def restore(self) -> int:
        """Put the newest state back; the number of iterations that led to it, 0 where there is none."""
        checkpoint = self.store.latest()
        if checkpoint is None:
            return 0
        self.critic.optimiser.restore(checkpoint.tensors, "critic.")
        self.artist.optimiser.restore(checkpoint.tensors, "artist.")
        for name, tensor in self.artist.old.items():
            tensor.copy_(like(tensor, checkpoint.tensors[f"old.{name}"]))
        self.generator.set_state(checkpoint.tensors["generator"])
        self.artist.old_is_current = checkpoint.values["old_is_current"]
        self.alarm.history = checkpoint.values["validations"]
        return checkpoint.step


def _check(settings: ReinforceSettings) -> None:
    photos = settings.rollouts.photos
    enough_rows("rollouts.photos", photos, world_size())
    if settings.compute.sharded and settings.rollouts.edit_batch and photos % world_size():
        raise ValueError(
            f"sharded models need as many passes on every rank: rollouts.photos is {photos}, and must be a multiple of "
            f"the {world_size()} processes where rollouts.edit_batch divides the edits"
        )


def load_modules(
    base: Path, critic_adapter: Path, artist_adapter: Path, settings: ReinforceSettings
) -> tuple[Critic, Artist]:
    """Both modules with the adapters that are trained, and those that stay: `reference` and the Artist's `old`."""
    placement = settings.compute.place()
    critic = Critic.load(base / "critic", critic_adapter, placement, trainable=True)
    artist = Artist.load(base / "artist", artist_adapter, placement, trainable=True)
    if settings.compute.gradient_checkpointing:
        critic.checkpoint_gradients()
        artist.checkpoint_gradients()
    copy_adapter(critic.model, "reference", critic_adapter)
    for name in ("old", "reference"):
        copy_adapter(artist.transformer, name, artist_adapter)
    settings.compute.prepare(critic, artist)
    return critic, artist


def _progress(done: int, iterations: int) -> tqdm:
    return tqdm(
        range(done, iterations),
        initial=done,
        total=iterations,
        desc="stage III",
        unit="iteration",
        disable=not is_main(),
    )


def _report(**parts: dict[str, float]) -> dict[str, float]:
    """Values of each part as `<part>/<name>`."""
    return {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
