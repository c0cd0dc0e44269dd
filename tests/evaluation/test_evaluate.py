"""The evaluation from photos on disk to tables and report, with an enhancer of known results, and a real package."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from components.data.records import Manifest
from components.evaluation import evaluate as module
from components.evaluation.baselines import BASELINES
from components.evaluation.evaluate import evaluate_enhancer, held_out_cases
from components.evaluation.records import Evaluation, EvaluationSettings, read_evaluation
from components.inference.enhancer import Enhancer, EnhancerSettings
from components.metrics.tables import BootstrapSettings, read_cases
from components.photometry.operations import apply_operations
from components.training.tracker import NullTracker
from tests.evaluation.conftest import KnowingEnhancer
from tests.tiny_models import write_tiny_package

pytestmark = pytest.mark.slow

QUICK = EvaluationSettings(views=2, library_views=1, max_side=48, bootstrap=BootstrapSettings(resamples=200))


class Recorder(NullTracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.files: list[str] = []
        self.pictures: list[torch.Tensor] = []

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.values |= values

    def artifact(self, path: Path, name: str) -> None:
        self.files.append(f"{name}/{path.name}")

    def picture(self, name: str, image: torch.Tensor, step: int) -> None:
        self.pictures.append(image)


class Run(NamedTuple):
    """An evaluation, where it wrote, and what was tracked."""

    evaluation: Evaluation
    out: Path
    tracked: Recorder


@pytest.fixture(scope="module")
def run(photos: tuple[Path, Manifest], backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Evaluate a `KnowingEnhancer` that goes ``share`` of the way back to the original."""

    def evaluated(share: float, text: str | None = None) -> Run:
        folder, manifest = photos
        enhancer, recorder, out = KnowingEnhancer(folder, share, text), Recorder(), tmp_path_factory.mktemp("out")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "Enhancer", lambda critic, artist, settings: enhancer)
            evaluation = evaluate_enhancer(enhancer, manifest, folder, backbone.parent, out, QUICK, recorder)
        return Run(evaluation, out, recorder)

    return evaluated


@pytest.fixture(scope="module")
def half_way(run: Callable[..., Run]) -> Run:
    """Of an enhancer that leaves half of the error."""
    return run(share=0.5)


def test_a_enhancer_that_knows_the_original_has_no_error(run: Callable[..., Run]) -> None:
    evaluation, out, _ = run(share=1.0)
    assert (evaluation.photos, evaluation.cases) == (3, 9)
    assert evaluation.ratio_to_input.value == pytest.approx(0, abs=1e-6)
    assert evaluation.change_of_intact.value == evaluation.intact_changed_visibly == 0
    cases = read_cases(out / "cases.parquet")
    assert cases.groupby("family").size().to_dict() == {
        family: count * 3 * (2 + len(BASELINES)) for family, count in (("own", 2), ("library", 1), ("intact", 1))
    }
    assert set(cases.method) == {"input", "enhance", *BASELINES}
    assert set(cases.photo_id) == {"sample/0.png", "sample/2.png", "sample/3.png"}  # the train photo is not judged


def test_a_enhancer_that_does_nothing_equals_the_input(run: Callable[..., Run]) -> None:
    evaluation = run(share=0.0).evaluation
    assert evaluation.ratio_to_input.value == pytest.approx(1)
    by_method = {row.method: row for row in evaluation.rows}
    for name, interval in by_method["input"].measures.items():
        assert by_method["enhance"].measures[name].value == pytest.approx(interval.value)


def test_half_way_is_about_half_the_error(half_way: Run) -> None:
    assert half_way.evaluation.ratio_to_input.value == pytest.approx(0.5, abs=0.08)


def test_families_and_sizes_of_faults_are_told_apart(half_way: Run) -> None:
    own, library = half_way.evaluation.families
    assert (own.family, own.cases, library.family, library.cases) == ("own", 6, "library", 3)
    cases = read_cases(half_way.out / "cases.parquet").pivot(
        index=["photo_id", "view", "family"], columns="method", values="ciede2000"
    )
    for figures in (own, library):
        of_family = cases.xs(figures.family, level="family")
        by_photo = of_family.groupby("photo_id").mean()
        assert figures.ratio_to_input.value == pytest.approx(by_photo.enhance.mean() / by_photo.input.mean())
        borders = [0, 4, 7, 10, 15, np.inf]
        counts = {
            f"{a} to {b}": int(((of_family.input >= a) & (of_family.input < b)).sum()) for a, b in pairwise(borders)
        }
        assert list(figures.by_size) == [name.replace("15 to inf", "above 15") for name, n in counts.items() if n]


def test_photos_that_the_edit_makes_worse_are_shown(run: Callable[..., Run]) -> None:
    evaluation, out, _ = run(share=-0.5)
    assert evaluation.ratio_to_input.value > 1
    assert "Made worse" in (out / "report.html").read_text()
    _, out, _ = run(share=0.5)
    assert "Made worse" not in (out / "report.html").read_text()


def test_the_best_baseline_is_compared_with(half_way: Run) -> None:
    evaluation = half_way.evaluation
    means = {row.method: row.measures["ciede2000"].value for row in evaluation.rows}
    best = min(BASELINES, key=means.__getitem__)
    assert evaluation.best_baseline == best
    assert evaluation.ratio_to_best_baseline.value == pytest.approx(means["enhance"] / means[best])


def test_the_critic_is_judged_on_every_view(half_way: Run) -> None:
    evaluation = half_way.evaluation
    verdicts = pd.read_parquet(half_way.out / "verdicts.parquet")
    assert len(verdicts) == 3 * (1 + 2 + 1)
    assert evaluation.critic.parse_rate.value == 1
    assert evaluation.critic.score_correlation > 0.8
    assert evaluation.critic.faults == sum(len(json.loads(faults)) for faults in verdicts.faults)
    assert (verdicts[verdicts["view"] == -1].fault_size == 0).all()


def test_babble_is_counted_as_failure_not_skipped(run: Callable[..., Run]) -> None:
    evaluation, out, _ = run(share=0.5, text="lovely </script><img src=x>")
    critic = evaluation.critic
    assert critic.parse_rate.value == 0
    assert critic.direction_accuracy.value == 0
    assert critic.score_correlation == 0
    report = (out / "report.html").read_text()
    assert "did not parse" in report
    assert "<img src=x>" not in report


def test_everything_is_tracked(half_way: Run) -> None:
    evaluation, _, recorder = half_way
    assert recorder.values["ratio_to_input"] == evaluation.ratio_to_input.value
    assert recorder.values["clahe/ciede2000"] > 0
    assert all(np.isfinite(value) for value in recorder.values.values())
    assert recorder.files == [
        f"evaluation/{name}" for name in ("cases.parquet", "verdicts.parquet", "table.json", "report.html")
    ]
    assert [picture.shape[0] for picture in recorder.pictures] == [3, 3, 3]


def test_the_table_on_disk_is_the_record(half_way: Run) -> None:
    assert read_evaluation(half_way.out) == half_way.evaluation


def test_the_record_of_an_earlier_version_is_read(half_way: Run, tmp_path: Path) -> None:
    record = json.loads((half_way.out / "table.json").read_text())
    record["settings"]["crafter"] = record["settings"].pop("enhancer")
    (tmp_path / "table.json").write_text(json.dumps(record))
    assert read_evaluation(tmp_path) == half_way.evaluation


def test_cases_are_the_same_every_time_and_follow_the_seed(photos: tuple[Path, Manifest]) -> None:
    folder, manifest = photos
    record = next(iter(manifest))
    first, again = (list(held_out_cases(record, folder, QUICK)) for _ in range(2))
    other = list(held_out_cases(record, folder, QUICK.model_copy(update={"seed": 1})))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.faulty, b.faulty) and a.faults == b.faults
    assert [case.faults for case in first[1:]] != [case.faults for case in other[1:]]
    assert [(case.view, case.family) for case in first] == [(-1, "intact"), (0, "own"), (1, "own"), (2, "library")]
    for case in first:
        assert max(case.intact.shape[-2:]) == 48
        assert bool(case.labels) == (case.view >= 0) == (not torch.equal(case.faulty, case.intact))
    for case in first[:3]:
        error = case.faulty - apply_operations(case.intact, case.faults)
        assert error.abs().max() <= 0.5 / 255 + 1e-6


def test_a_real_package_is_evaluated(photos: tuple[Path, Manifest], backbone: Path, tmp_path: Path) -> None:
    folder, manifest = photos
    package = write_tiny_package(tmp_path / "parts", tmp_path / "package").folder
    enhancer = EnhancerSettings(draws=1, steps=2, max_new_tokens=4, mirrored=False)
    settings = QUICK.model_copy(update={"enhancer": enhancer, "views": 1, "baselines": ("grey_world",)})
    evaluation = evaluate_enhancer(
        Enhancer.load(package), manifest, folder, backbone.parent, tmp_path / "out", settings, NullTracker()
    )
    assert evaluation.cases == 6
    assert evaluation.settings.enhancer == enhancer
    judged = write_tiny_package(tmp_path / "more", tmp_path / "judged", tmp_path / "out")
    assert Enhancer.load(judged.folder).settings == enhancer


def test_a_manifest_without_held_out_photos_is_an_error(photos: tuple[Path, Manifest], backbone: Path) -> None:
    folder, manifest = photos
    train_only = Manifest.of([record for record in manifest if record.split == "train"])
    with pytest.raises(ValueError, match="manifest of 1 photos has none in the split 'test'"):
        evaluate_enhancer(KnowingEnhancer(folder, 1), train_only, folder, backbone.parent, folder, QUICK, NullTracker())


@pytest.mark.parametrize("names", [(), ("magic",)])
def test_unknown_or_no_baselines_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="grey_world"):
        EvaluationSettings(baselines=names)
