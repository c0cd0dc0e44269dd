"""Stage III on tiny models: what it reports, what it moves and leaves alone, what it drops, and how it resumes."""

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from components.models.artist import Artist
from components.models.critic import Critic
from components.models.lora import adapter_tensors
from components.reinforcement import artist_update, coordinated, critic_update
from components.reinforcement.coordinated import ReinforceSettings, reinforce
from components.reinforcement.grpo import GrpoSettings, group_advantages
from components.reinforcement.nft import NftSettings
from components.reinforcement.rollouts import Round, reward
from components.training.checkpoints import CheckpointStore
from tests.recording import RecordingTracker
from tests.stage_three import SETTINGS, Inputs, read_by_hash, reading_by_hash

pytestmark = pytest.mark.slow

TERMS = {
    "critic": ("format", "ranking", "suggestion"),
    "artist": ("compliance", "photometric", "perceptual", "total"),
}


class Run(NamedTuple):
    """A finished stage III: where it went, what it reported, its models and the experience it gathered."""

    out: Path
    tracker: RecordingTracker
    closing: dict[str, float]
    critic: Critic
    artist: Artist
    rounds: list[Round]


def settings(**changes: Any) -> ReinforceSettings:
    return SETTINGS.model_copy(update=changes)


def run(inputs: Inputs, out: Path, changed: ReinforceSettings = SETTINGS) -> Run:
    loaded: dict[type, Any] = {}
    rounds: list[Round] = []

    def remembering(cls: type):
        original = cls.load

        def load(*arguments, **options):
            loaded[cls] = original(*arguments, **options)
            return loaded[cls]

        return load

    rewarding = coordinated.reward

    def reward_and_keep(*arguments) -> Round:
        rounds.append(rewarding(*arguments))
        return rounds[-1]

    tracker = RecordingTracker()
    with pytest.MonkeyPatch.context() as patch, reading_by_hash():
        for cls in (Critic, Artist):
            patch.setattr(cls, "load", remembering(cls))
        patch.setattr(coordinated, "reward", reward_and_keep)
        closing = reinforce(*inputs, out, changed, tracker, out / "checkpoints")
    return Run(out, tracker, closing, loaded[Critic], loaded[Artist], rounds)


def adapter(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def files_before(inputs: Inputs) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in inputs for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(inputs: Inputs, files_before: dict, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    yield run(inputs, tmp_path_factory.mktemp("finished"))


def test_every_reward_term_is_reported_in_every_iteration(finished: Run) -> None:
    for module, names in TERMS.items():
        for name in names:
            series = finished.tracker.series(f"reinforce/{module}/reward_{name}")
            assert [step for step, _ in series] == [1, 2], name
            assert all(0 <= value <= 1 for _, value in series), name
    for name in ("critic/reward", "critic/loss", "critic/kl", "artist/loss", "artist/kl", "artist/old_decay"):
        assert len(finished.tracker.series(f"reinforce/{name}")) == 2, name


def test_rates_of_passing_drift_and_throughput_are_reported(finished: Run) -> None:
    first = dict(finished.tracker.rows[1][1])
    experience = finished.rounds[0]
    parsed = (experience.critic.terms["format"] > 0).float()
    assert first["reinforce/critic/parse_rate"] == pytest.approx(float(parsed.mean()))
    passed = experience.critic.rewards_NG >= 0.5  # the weights of its terms sum to 1
    assert first["reinforce/critic/pass_rate"] == pytest.approx(float(passed.float().mean()))
    assert first["reinforce/critic/groups_all_failed"] == pytest.approx(float((~passed).all(dim=1).float().mean()))
    edits = experience.artist.rewards_B >= 0.5
    assert first["reinforce/artist/pass_rate"] == pytest.approx(float(edits.float().mean()))
    assert first["reinforce/artist/clip_fraction"] == 0
    for module in ("critic", "artist"):
        drift = [value for _, value in finished.tracker.series(f"reinforce/{module}/drift_reference")]
        assert 0 < drift[0] < drift[1]
    rates = {"samples_per_second", "critic_tokens_per_second", "teraflops_per_second", "peak_process_gib"}
    for name in rates:
        assert first[f"reinforce/throughput/{name}"] > 0


def test_reported_terms_are_those_of_the_experience(finished: Run) -> None:
    weights = SETTINGS.rollouts.critic
    for index, experience in enumerate(finished.rounds):
        judged, edits = experience.critic, experience.artist
        for name in TERMS["critic"]:
            assert finished.tracker.series(f"reinforce/critic/reward_{name}")[index][1] == pytest.approx(
                float(judged.terms[name].mean())
            )
        expected = sum(getattr(weights, name) * judged.terms[name] for name in TERMS["critic"])
        torch.testing.assert_close(judged.rewards_NG, expected)
        for name in TERMS["artist"]:
            assert finished.tracker.series(f"reinforce/artist/reward_{name}")[index][1] == pytest.approx(
                float(edits.terms[name][edits.judged].mean())
            )
        gate = edits.terms["compliance"] * 0.5 * (edits.terms["photometric"] + edits.terms["perceptual"])
        torch.testing.assert_close(edits.rewards_B, gate)


def test_validation_opens_and_closes_the_stage(finished: Run) -> None:
    series = finished.tracker.series("reinforce/validation/colour_error")
    assert [step for step, _ in series] == [0, 2]
    assert series[-1][1] == finished.closing["colour_error"]
    assert [step for _, step, _ in finished.tracker.pictures] == [0, 2]


def test_a_parse_failure_earns_nothing_in_any_term(finished: Run) -> None:
    failures = 0
    for experience in finished.rounds:
        judged, edits = experience.critic, experience.artist
        failed = torch.tensor([read_by_hash(text) is None for text in judged.rollout.texts])
        failures += int(failed.sum())
        for values in judged.terms.values():
            assert (values.flatten()[failed] == 0).all()
            assert (values.flatten() >= 0).all() and (values.flatten() <= 1).all()
        about_photos = failed[: len(failed) // 2].repeat_interleave(SETTINGS.rollouts.edits)
        assert torch.equal(edits.judged, ~about_photos)
        assert all((values[about_photos] == 0).all() for values in edits.terms.values())
    assert failures > 0


def test_both_policies_move_and_everything_else_stays(
    finished: Run, inputs: Inputs, files_before: dict[Path, bytes]
) -> None:
    assert {path: path.read_bytes() for path in files_before} == files_before
    assert not same(adapter(finished.out / "critic"), adapter(inputs.critic_adapter))
    assert not same(adapter(finished.out / "artist"), adapter(inputs.artist_adapter))
    for model, fresh, start, names in (
        (finished.critic.model, Critic.load(inputs.base / "critic"), inputs.critic_adapter, ["reference"]),
        (finished.artist.transformer, Artist.load(inputs.base / "artist"), inputs.artist_adapter, ["reference"]),
    ):
        weights = {
            name.removeprefix("base_model.model.").replace(".base_layer", ""): tensor
            for name, tensor in model.state_dict().items()
            if "lora_" not in name
        }
        base = fresh.model if isinstance(fresh, Critic) else fresh.transformer
        assert same(weights, dict(base.state_dict()))
        for name in names:
            assert same({n: p.detach() for n, p in adapter_tensors(model, name).items()}, adapter(start))


def test_the_result_loads_as_stage_two_left_it(finished: Run, inputs: Inputs) -> None:
    for folder, start, load in (
        ("critic", inputs.critic_adapter, Critic.load),
        ("artist", inputs.artist_adapter, Artist.load),
    ):
        assert adapter(finished.out / folder).keys() == adapter(start).keys()
        load(inputs.base / folder, finished.out / folder)


def test_the_rollout_policy_follows_the_current_one(inputs: Inputs, tmp_path: Path) -> None:
    start = {name: p.clone() for name, p in adapter(inputs.artist_adapter).items()}
    changed = settings(iterations=2, nft=NftSettings(decay_rate=0.2, decay_cap=0.3), checkpoint_every=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coordinated, "CheckpointStore", lambda folder: CheckpointStore(folder, keep=9))
        run(inputs, tmp_path, changed)
    old = start
    for iteration, decay in ((1, 0.2), (2, 0.3)):
        saved = load_file(tmp_path / "checkpoints" / f"step-{iteration:08d}" / "tensors.safetensors")
        current = {name: saved[f"artist.parameter.{name}"] for name in old}
        old = {name: decay * old[name] + (1 - decay) * current[name] for name in old}
        for name in old:
            torch.testing.assert_close(saved[f"old.{name}"], old[name], atol=1e-6, rtol=1e-5)


def test_a_killed_stage_resumes_bit_for_bit(finished: Run, inputs: Inputs, root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.stage_three", str(inputs.base.parent), str(tmp_path)]
    command.append(str(torch.get_num_threads()))  # sums depend on it
    process = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=500)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert CheckpointStore(tmp_path / "checkpoints").latest().step == 1
    assert not (tmp_path / "critic").exists()
    resumed = run(inputs, tmp_path)
    for folder in ("critic", "artist"):
        assert same(adapter(resumed.out / folder), adapter(finished.out / folder)), folder
    states = [CheckpointStore(out / "checkpoints").latest() for out in (resumed.out, finished.out)]
    assert same(states[0].tensors, states[1].tensors) and states[0].values == states[1].values
    assert resumed.closing == finished.closing
    whole, again = (
        {name: value for step, row in tracker.rows if step == 2 for name, value in row.items()}
        for tracker in (finished.tracker, resumed.tracker)
    )
    assert whole.keys() == again.keys()
    assert {n: v for n, v in again.items() if "/throughput/" not in n} == {
        n: v for n, v in whole.items() if "/throughput/" not in n
    }
    assert min(step for step, _ in resumed.tracker.rows) == 2, "what was done is not done again"


def test_a_finished_stage_is_not_run_again(finished: Run, inputs: Inputs, tmp_path: Path) -> None:
    changed = settings()
    with reading_by_hash():
        closing = reinforce(*inputs, tmp_path, changed, RecordingTracker(), finished.out / "checkpoints")
    assert closing == finished.closing
    assert same(adapter(tmp_path / "artist"), adapter(finished.out / "artist"))


def test_groups_that_say_nothing_and_unread_verdicts_are_dropped(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first photo's edits all earn the same, and so do the verdicts about the last picture."""
    rounds: list[Round] = []
    trained: dict[str, list[Tensor]] = {"clean": [], "artist": [], "tokens": [], "critic": []}
    group = SETTINGS.rollouts.verdicts * SETTINGS.rollouts.edits

    def levelled(*arguments) -> Round:
        experience = reward(*arguments)
        edits, judged = experience.artist, experience.critic
        rewards, critic_rewards = edits.rewards_B.clone(), judged.rewards_NG.clone()
        rewards[:group], critic_rewards[-1] = 0.4, 0.7
        experience = Round(
            dataclasses.replace(judged, rewards_NG=critic_rewards), dataclasses.replace(edits, rewards_B=rewards)
        )
        rounds.append(experience)
        return experience

    nft_loss, policy_loss = artist_update.nft_loss, critic_update.policy_loss

    def watching_nft(velocity, old_velocity, noisy, clean, sigmas, advantages, nft):
        trained["clean"].append(clean)
        trained["artist"].append(advantages)
        return nft_loss(velocity, old_velocity, noisy, clean, sigmas, advantages, nft)

    def watching_grpo(log_p, old, reference, advantages, mask, grpo):
        trained["tokens"].append(old[:, 0])
        trained["critic"].append(advantages)
        return policy_loss(log_p, old, reference, advantages, mask, grpo)

    monkeypatch.setattr(coordinated, "reward", levelled)
    monkeypatch.setattr(artist_update, "nft_loss", watching_nft)
    monkeypatch.setattr(critic_update, "policy_loss", watching_grpo)
    done = run(inputs, tmp_path, settings(iterations=1))
    (experience,) = rounds
    edits, judged = experience.artist, experience.critic
    kept = edits.judged.clone()
    kept[:group] = False
    assert 0 < kept.sum() < group, "the test needs a group of which some verdicts were not read"
    clean, advantages = torch.cat(trained["clean"]), torch.cat(trained["artist"])
    expected = group_advantages(edits.rewards_B[kept][None])[0]
    rows = [int((edits.clean_BSC[kept] == row).all(dim=(1, 2)).nonzero()) for row in clean]
    assert sorted(rows) == sorted(list(range(int(kept.sum()))) * SETTINGS.nft.timesteps)
    torch.testing.assert_close(advantages, expected[rows])
    assert dict(done.tracker.rows[1][1])["reinforce/artist/groups_kept"] == 0.5
    pictures = len(judged.rewards_NG)
    informative = judged.rewards_NG.std(dim=1) >= SETTINGS.smallest_deviation
    assert not informative[-1] and informative.any()
    assert len(torch.cat(trained["tokens"])) == int(informative.sum()) * SETTINGS.rollouts.verdicts
    torch.testing.assert_close(
        torch.cat(trained["critic"]), group_advantages(judged.rewards_NG[informative], "dapo").flatten()
    )
    assert dict(done.tracker.rows[1][1])["reinforce/critic/groups_kept"] == pytest.approx(
        float(informative.sum()) / pictures
    )


def test_where_no_verdict_can_be_read_nothing_is_learnt(inputs: Inputs, tmp_path: Path) -> None:
    tracker = RecordingTracker()
    closing = reinforce(*inputs, tmp_path, settings(iterations=1), tracker, tmp_path / "checkpoints")
    assert closing["reward_total"] == 0
    assert tracker.series("reinforce/artist/judged") == [(1, 0.0)]
    assert tracker.series("reinforce/critic/groups_kept") == [(1, 0.0)]
    assert same(adapter(tmp_path / "critic"), adapter(inputs.critic_adapter))
    assert same(adapter(tmp_path / "artist"), adapter(inputs.artist_adapter))


@pytest.mark.parametrize(("frozen", "moving"), [("critic", "artist"), ("artist", "critic")])
def test_a_module_without_updates_is_frozen(inputs: Inputs, tmp_path: Path, frozen: str, moving: str) -> None:
    run(inputs, tmp_path, settings(iterations=1, **{f"{frozen}_updates": 0}))
    start = {"critic": inputs.critic_adapter, "artist": inputs.artist_adapter}
    assert same(adapter(tmp_path / frozen), adapter(start[frozen]))
    assert not same(adapter(tmp_path / moving), adapter(start[moving]))


def test_more_updates_than_edits_are_no_error(inputs: Inputs, tmp_path: Path) -> None:
    done = run(inputs, tmp_path, settings(iterations=1, artist_updates=50, nft=NftSettings(kl=0.0)))
    assert done.tracker.series("reinforce/artist/loss")


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
def test_the_size_of_micro_batches_changes_nothing_for_the_critic(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss_type: str
) -> None:
    """Completions are made to differ in length, where an average over micro-batches is not the one over tokens."""

    def shortened(*arguments) -> Round:
        experience = reward(*arguments)
        mask = experience.critic.rollout.token_mask_BT
        lengths = 1 + torch.arange(len(mask)) % mask.shape[1]
        rollout = dataclasses.replace(
            experience.critic.rollout, token_mask_BT=torch.arange(mask.shape[1]) < lengths[:, None]
        )
        return dataclasses.replace(experience, critic=dataclasses.replace(experience.critic, rollout=rollout))

    monkeypatch.setattr(coordinated, "reward", shortened)
    results = []
    for size in (3, 64):
        changed = settings(
            iterations=1, artist_updates=0, micro_batch=size, grpo=GrpoSettings(loss_type=loss_type, kl=0.05)
        )
        results.append(run(inputs, tmp_path / str(size), changed))
    for name in ("loss", "kl", "entropy", "clip_fraction", "gradient_norm"):
        values = [done.tracker.series(f"reinforce/critic/{name}")[0][1] for done in results]
        assert values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-6), name


def test_feedback_lets_the_edit_speak_for_its_verdict(inputs: Inputs, finished: Run, tmp_path: Path) -> None:
    done = run(inputs, tmp_path, settings(iterations=1, feedback=2.0))
    plain = finished.tracker.series("reinforce/critic/reward")[0][1]
    edits = done.rounds[0].artist
    assert done.tracker.series("reinforce/critic/reward")[0][1] == pytest.approx(
        plain + 2.0 * float(edits.rewards_B.mean()) / 2, rel=1e-5
    )


def test_edits_are_regressed_on_around_the_policy_that_made_them(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the first update the old policy is the current one; after it, and in later iterations, it is not."""
    apart: list[bool] = []
    nft_loss = artist_update.nft_loss

    def watching(velocity, old_velocity, *rest):
        apart.append(not torch.equal(velocity, old_velocity))
        return nft_loss(velocity, old_velocity, *rest)

    monkeypatch.setattr(artist_update, "nft_loss", watching)
    changed = settings(artist_updates=2, micro_batch=64, nft=NftSettings(timesteps=1, decay_rate=0.5))
    run(inputs, tmp_path, changed)
    assert apart == [False, True, True, True]


def test_a_divergence_without_weight_costs_no_forward_pass(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = artist_update.active_adapter
    for module in (artist_update, critic_update):
        monkeypatch.setattr(
            module, "active_adapter", lambda model, name: (asked.append(name), original(model, name))[1]
        )
    changed = settings(iterations=1, artist_updates=1, nft=NftSettings(kl=0.0, timesteps=1), grpo=GrpoSettings(kl=0.0))
    done = run(inputs, tmp_path, changed)
    assert "reference" not in asked
    assert "old" not in asked, "before the first update the old policy is the current one"
    assert done.tracker.series("reinforce/artist/kl")[0][1] == 0
