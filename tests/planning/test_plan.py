"""Plans of small models: parts add up, sharding and checkpointing do what they should, and the exit status tells."""

import json
from pathlib import Path

import pytest

from components.models.flops import transformer_flops
from components.models.published import Configurations, read_configurations
from components.planning.gpus import BOARDS, GPUS, gpu_named, peak_flops
from components.planning.plan import Plan, make_plan
from components.planning.settings import PlanSettings
from components.planning.stages import STAGES
from components.settings import load_settings
from pipelines.__main__ import main
from tests.planning.small import small

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "configs" / "local.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base models without weights, laid out as data/base is."""
    base, models = tmp_path_factory.mktemp("base"), small()
    contents = {
        "critic/config.json": models.critic,
        "artist/transformer/config.json": models.transformer,
        "artist/vae/config.json": models.vae,
        "artist/scheduler/scheduler_config.json": models.scheduler,
        "artist/artist.json": {"area": models.area},
    }
    for name, content in contents.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(json.dumps(content))
    return base


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_settings(PROFILE), small(), PlanSettings(gpu="H100-80G", count=2))


def test_a_folder_of_base_models_is_read(folder: Path) -> None:
    read: Configurations = read_configurations(folder)
    assert read == small() and read.pixels_per_token == 8


def test_every_option_adds_up(plan: Plan) -> None:
    assert [stage.name for stage in plan.stages] == ["train_critic", "train_artist", "adapt_artist", "reinforce"]
    assert plan.fits
    for stage in plan.stages:
        assert {(option.sharding, option.checkpointing) for option in stage.options} == {
            (sharding, checkpointing) for sharding in ("ddp", "fsdp") for checkpointing in (False, True)
        }
        for option in stage.options:
            phases = {phase.name: phase.activations + phase.workspace + phase.cache for phase in option.phases}
            assert option.peak == sum(option.parts.values()) + max(phases.values())
            assert phases[option.peak_phase] == max(phases.values())
            assert option.parts["optimiser"] == 2 * option.parts["gradients"]
            seconds = option.seconds_per_step * stage.steps + option.validation_seconds * stage.validations
            assert option.hours == pytest.approx(seconds / 3600)
            assert option.hours < option.hours_most <= 2 * option.hours


def test_sharding_halves_what_is_held_and_checkpointing_costs_a_forward_pass(plan: Plan) -> None:
    stage = next(stage for stage in plan.stages if stage.name == "train_artist")
    options = {(option.sharding, option.checkpointing): option for option in stage.options}
    whole, shared = options["ddp", False], options["fsdp", False]
    for part in ("artist weights", "critic weights", "gradients", "optimiser"):
        assert shared.parts[part] == whole.parts[part] // 2
    assert whole.parts["gradients"] == 4 * stage.trainable_parameters
    again = options["ddp", True]
    grid, rows = plan.working_size, 4  # half of the profile's batch of 8
    tokens = grid[0] * grid[1] // 64
    prompt = round(160 / 28) * round(240 / 28) + 64
    forward = transformer_flops(small().transformer, 2 * tokens, prompt, load_settings(PROFILE).train_artist.lora.rank)
    assert again.flops_per_step - whole.flops_per_step == rows * forward.forward
    passes = [next(phase for phase in option.phases if "backward" in phase.name) for option in (again, whole)]
    assert passes[0].activations < passes[1].activations and passes[0].rows == passes[1].rows == rows


def test_stage_iii_keeps_the_rollout_and_reference_adapters(plan: Plan) -> None:
    option = plan.stages[-1].best
    adapters = {name for name in option.parts if name.endswith("adapter")}
    ours = {"critic adapter", "critic reference adapter", "artist adapter", "artist reference adapter"}
    assert adapters == {*ours, "artist old adapter"}
    assert option.parts["artist old adapter"] == option.parts["artist adapter"]
    assert "critic adapter" not in plan.stages[1].best.parts  # the base Critic reads the task prompts
    assert next(phase for phase in option.phases if phase.name == "write verdicts").cache > 0


def test_parts_of_a_batch_take_less_memory_and_as_many_operations() -> None:
    question = PlanSettings(gpu="H100-80G", shardings=("ddp",), checkpointing=(True,))
    whole = ["train_critic.batch_size=8", "train_artist.batch_size=8", "adapt_artist.batch_size=8"]
    parts = ["train_critic.micro_batch=2", "train_artist.micro_batch=2", "adapt_artist.micro_batch=2"]
    parts += ["reinforce.micro_batch=2", "reinforce.rollouts.edit_batch=2"]
    plans = [make_plan(load_settings(PROFILE, settings), small(), question) for settings in (whole, whole + parts)]
    for before, after in zip(*(plan.stages for plan in plans), strict=True):
        assert after.best.peak < before.best.peak and after.best.flops_per_step == before.best.flops_per_step
        once = {phase.name: phase.rows for phase in after.best.phases}
        assert {once[name] for name in once if name not in ("read photos", "write verdicts")} == {2}


def test_validations_count_and_are_as_long_as_what_is_held_out() -> None:
    question = PlanSettings(gpu="H100-80G", shardings=("ddp",), checkpointing=(True,))
    names = ("train_critic.held_out", "train_artist.held_out", "adapt_artist.held_out", "reinforce.comparison.held_out")
    few, many = (
        make_plan(load_settings(PROFILE, [f"{name}.samples={samples}" for name in names]), small(), question)
        for samples in (320, 1280)
    )
    assert [stage.validations for stage in few.stages] == [1, 1, 1, 3]
    for before, after in zip(few.stages, many.stages, strict=True):
        assert after.best.validation_seconds == pytest.approx(4 * before.best.validation_seconds)
        assert after.best.peak == before.best.peak and after.best.seconds_per_step == before.best.seconds_per_step
        assert after.best.hours > before.best.hours > before.best.seconds_per_step * before.steps / 3600


@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_round_is_divided_as_the_stage_divides_it(count: int) -> None:
    """Twice the GPUs do half the operations a step; more GPUs than samples are refused, as the stage refuses them."""
    profile = load_settings(PROFILE, ["reinforce.rollouts.photos=8", "reinforce.micro_batch=2"])
    plans = [
        make_plan(profile, small(), PlanSettings(gpu="H100-80G", count=gpus, shardings=("ddp",), checkpointing=(True,)))
        for gpus in (1, count)
    ]
    for one, several in zip(*(plan.stages for plan in plans), strict=True):
        assert several.best.flops_per_step == pytest.approx(one.best.flops_per_step / count, rel=0.01)
    with pytest.raises(ValueError, match=r"reinforce\.rollouts\.photos is 8, which 16 processes"):
        make_plan(
            load_settings(PROFILE, [*(f"{name}.batch_size=16" for name in STAGES[:3]), "reinforce.rollouts.photos=8"]),
            small(),
            PlanSettings(gpu="H100-80G", count=16, shardings=("ddp",), checkpointing=(True,)),
        )


def test_what_does_not_fit_says_how_much_would(folder: Path) -> None:
    overrides = ["train_critic.batch_size=4000000"]
    plan = make_plan(load_settings(PROFILE, overrides), small(), PlanSettings(gpu="A100-40G", checkpointing=(False,)))
    option = plan.stages[0].best
    assert not plan.fits and not option.fits and 0 < option.largest_rows < 4_000_000
    fewer = ["train_critic.batch_size=" + str(option.largest_rows)]
    assert (
        make_plan(load_settings(PROFILE, fewer), small(), PlanSettings(gpu="A100-40G", checkpointing=(False,)))
        .stages[0]
        .best.fits
    )


def test_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--config", str(PROFILE), "--models", str(folder), "--checkpointing", "off"]
    assert main(["plan", *common, "--gpu", "h100-80g", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True
    assert main(["plan", *common, "--gpu", "L40S-48G", "--set", "train_critic.batch_size=4000000"]) == 1
    text = capsys.readouterr().out
    assert "It does not fit." in text and "optimiser" in text and "GPU hours" in text
    assert main(["plan", *common, "--gpu", "H100"]) == 2
    assert "H100-80G" in capsys.readouterr().err
    assert main(["plan", "--config", "nowhere.yaml", "--gpu", "H100-80G"]) == 2
    capsys.readouterr()
    assert main(["plan", *common]) == 2
    assert "such as --gpu H100-80G --count 8" in capsys.readouterr().err


def test_gpus_are_plausible() -> None:
    for gpu in GPUS.values():
        assert 1e13 < gpu.flops_float32 < gpu.flops < 1e16
        assert gpu.interconnect < gpu.bandwidth
    assert gpu_named("a100-80g") is GPUS["A100-80G"]


def test_the_peak_of_a_board_is_found_by_its_drivers_name() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == GPUS["H100-80G"].flops
    assert peak_flops("NVIDIA A100-SXM4-40GB", "float32") == GPUS["A100-40G"].flops_float32
    assert peak_flops("NVIDIA H100 PCIe", "bfloat16") is None, "a slower board of the same chip"
    assert peak_flops("cpu", "float32") is None
    assert set(BOARDS.values()) == set(GPUS)
