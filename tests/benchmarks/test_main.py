"""The benchmark: rows say whether a promise is met, commands are measured with their children, stages are paired."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import main as benchmark
from benchmarks.main import BenchmarkRow, ProcessUsage, evaluation_rows, measure_command, pipeline_rows, show, stage_row
from benchmarks.stages import StageGain, stage_gain
from components.command_line import run
from components.data.records import Manifest, write_manifest
from components.evaluation import evaluate
from components.evaluation.records import Evaluation, EvaluationSettings, FamilyFigures
from components.inference.enhancer import EnhancerSettings
from components.metrics.full_reference import LPIPS_FILE, measure_case
from components.metrics.tables import BootstrapSettings, Interval
from components.reinforcement.comparison import PolicyScores
from tests.evaluation.builders import make_evaluation, make_figures
from tests.tiny_models import write_adapters, write_base, write_lpips

pytestmark = pytest.mark.slow


def exactly(value: float) -> Interval:
    return Interval(value=value, low=value, high=value)


def measured(
    own: float, library: float, harm: float, margin: float, parse: float, direction: float, correlation: float
) -> Evaluation:
    critic = make_figures(
        parse_rate=exactly(parse), direction_accuracy=exactly(direction), score_correlation=correlation
    )
    families = tuple(
        FamilyFigures(
            family=family,
            cases=8,
            ratio_to_input=exactly(left),
            baseline_ratio_to_input=exactly(1.2),
            by_size={"4 to 7": exactly(left)},
        )
        for family, left in (("own", own), ("library", library))
    )
    return make_evaluation(
        families=families,
        change_of_intact=exactly(harm),
        ratio_to_best_baseline=exactly(margin),
        critic=critic,
    )


def make_scores(totals: list[float], photos: list[str] | None = None) -> PolicyScores:
    photos = photos or [f"p{index // 2}" for index in range(len(totals))]
    ids = [f"{photo}/{index}" for index, photo in enumerate(photos)]
    return PolicyScores(ids, photos, {"total": torch.tensor(totals)}, {}, torch.zeros(3, 1, 1))


def test_figures_at_their_targets_are_met_and_just_beyond_are_not() -> None:
    assert all(row.ok for row in evaluation_rows(measured(0.65, 0.66, 1.5, 0.85, 1.0, 0.75, 0.6)))
    assert not any(row.ok for row in evaluation_rows(measured(0.66, 0.67, 1.6, 0.86, 0.99, 0.74, 0.59)))


def test_rows_carry_value_peer_and_ratio() -> None:
    first = evaluation_rows(measured(0.6, 0.7, 1.0, 0.5, 1.0, 0.8, 0.7))[0]
    assert (first.value, first.peer, first.ratio) == (0.6, 1.2, pytest.approx(0.5))


def test_time_and_memory() -> None:
    rows = pipeline_rows(ProcessUsage(700, 3_900_000_000), ProcessUsage(9, 0))
    assert [row.ok for row in rows] == [True, True, True]
    assert rows[1].value == pytest.approx(3.9)
    assert [row.ok for row in pipeline_rows(ProcessUsage(721, 4_100_000_000), ProcessUsage(11, 0))] == [
        False,
        False,
        False,
    ]


def test_a_gain_counts_only_with_its_whole_interval() -> None:
    sure = StageGain(before=0.4, after=0.5, gain=Interval(value=0.1, low=0.01, high=0.2))
    unsure = StageGain(before=0.4, after=0.5, gain=Interval(value=0.1, low=-0.01, high=0.2))
    assert stage_row(sure).ok and not stage_row(unsure).ok
    assert stage_row(sure).ratio == pytest.approx(1.25)


def test_stages_are_compared_pair_by_pair_over_photos() -> None:
    before = torch.linspace(0.1, 0.9, 20)
    gain = stage_gain(make_scores(before.tolist()), make_scores((before + 0.02).tolist()), BootstrapSettings())
    assert gain.before == pytest.approx(0.5)
    assert gain.after == pytest.approx(0.52)
    assert gain.gain.low == pytest.approx(0.02, abs=1e-5)  # the spread between photos cancels
    with pytest.raises(ValueError, match="same cases"):
        stage_gain(make_scores([0.1, 0.2]), make_scores([0.1, 0.2], ["a", "b"]), BootstrapSettings())


def test_a_command_is_measured_with_its_children(tmp_path: Path) -> None:
    child = "import time; block = bytearray(80_000_000); time.sleep(2)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    usage = measure_command([sys.executable, "-c", parent], {}, tmp_path)
    assert usage.seconds >= 2
    assert 80e6 < usage.peak_bytes < 300e6


def test_a_failing_command_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        measure_command([sys.executable, "-c", "raise SystemExit(3)"], {}, tmp_path)


def test_the_environment_reaches_the_command(tmp_path: Path) -> None:
    code = "import os; open('seen', 'w').write(os.environ['SPC_STATE'])"
    measure_command([sys.executable, "-c", code], {"SPC_STATE": "elsewhere"}, tmp_path)
    assert (tmp_path / "seen").read_text() == "elsewhere"


def test_missed_figures_are_shown_as_missed() -> None:
    stream = io.StringIO()
    rows = evaluation_rows(measured(0.7, 0.6, 1.0, 0.5, 1.0, 0.8, 0.7))
    show(rows, Console(file=stream, width=160))
    lines = stream.getvalue().splitlines()
    assert any("our own faults" in line and "missed" in line for line in lines)
    assert sum("met" in line for line in lines) == 6


def test_photos_are_judged_as_large_as_they_are(
    photos: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, manifest = photos
    write_manifest(manifest, tmp_path / "manifest")
    base = write_base(tmp_path / "base")
    write_lpips(base / LPIPS_FILE)
    adapters = write_adapters(base, tmp_path)
    monkeypatch.setattr(benchmark, "BASE", base)
    monkeypatch.setattr(benchmark, "PHOTOS", folder)
    sizes = []

    def seen(picture: torch.Tensor, *arguments: object) -> dict[str, float]:
        sizes.append(tuple(picture.shape[-2:]))
        return measure_case(picture, *arguments)

    monkeypatch.setattr(evaluate, "measure_case", seen)
    enhancer = EnhancerSettings(critic_short_side=28, max_new_tokens=4, steps=1, draws=1)
    settings = EvaluationSettings(
        views=1, library_views=0, max_side=40, enhancer=enhancer, bootstrap=BootstrapSettings(resamples=100)
    )
    evaluation = benchmark.judge_in_full(tmp_path / "manifest", adapters, settings)
    assert evaluation.cases == 3
    assert set(sizes) == {(60, 90), (76, 90), (84, 90)}


def test_the_rows_are_written_as_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = (
        "validate/validated_manifest",
        "train_critic/critic_adapter",
        "adapt_artist/adapted_artist_adapter",
        "reinforce/reinforced_critic_adapter",
        "reinforce/reinforced_artist_adapter",
        "synthesize/pairs",
    )
    monkeypatch.setattr(benchmark, "_outputs", lambda environment: {s: str(tmp_path / s.split("/")[1]) for s in steps})
    gain = StageGain(before=0.4, after=0.5, gain=Interval(value=0.1, low=0.01, high=0.2))
    evaluation = measured(0.6, 0.66, 1.0, 0.5, 1.0, 0.8, 0.7)
    monkeypatch.setattr(benchmark, "judge_in_full", lambda *arguments: evaluation)
    monkeypatch.setattr(benchmark, "compare_stages", lambda *arguments: gain)
    assert run(benchmark.main, ["--no-pipeline", "--out", str(tmp_path / "main.json")]) == 0
    rows = json.loads((tmp_path / "main.json").read_text())["rows"]
    assert [BenchmarkRow(**row).ok for row in rows] == [True] * 8
    assert list(rows[0]) == ["name", "value", "unit", "peer", "ratio", "target", "ok"]
