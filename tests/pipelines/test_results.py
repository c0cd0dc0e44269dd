"""What is put where people look after a run."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from components.registry.decision import Decision
from components.registry.promotion import GateSettings, decide
from pipelines.outputs import outputs
from pipelines.results import collect

pytestmark = pytest.mark.slow


class Version:
    """Stands in for an artifact version of ZenML."""

    def __init__(self, value: object, uri: str) -> None:
        self._value, self.uri = value, uri

    def load(self) -> object:
        return self._value


def decision() -> Decision:
    index = pd.MultiIndex.from_product([["a", "b", "c"], [0]], names=["photo_id", "view"])
    reference = pd.DataFrame({"ciede2000": [9.0, 8.0, 7.0], "lpips": [0.1, 0.2, 0.3]}, index=index)
    settings = GateSettings(tolerances={"ciede2000": 0.0, "lpips": 0.005}, limits={}, resamples=100)
    return decide(reference / 2, reference, settings, "the untouched input")


def test_report_tables_and_places(tmp_path: Path) -> None:
    evaluation = tmp_path / "stored"
    evaluation.mkdir()
    (evaluation / "report.html").write_text("<p>report</p>")
    (evaluation / "table.json").write_text("{}")
    adapter = tmp_path / "adapter"
    steps = {
        "ingest": {"manifest": [Version(tmp_path, "s3://bucket/manifest")]},
        "reinforce": {"reinforced_critic_adapter": [Version(adapter, str(tmp_path))]},
        "evaluate": {"evaluation": [Version(evaluation, str(tmp_path))]},
        "promote": {"decision": [Version(decision(), str(tmp_path))]},
    }
    run = SimpleNamespace(steps={name: SimpleNamespace(outputs=outputs) for name, outputs in steps.items()})
    folder = tmp_path / "latest"
    folder.mkdir()
    (folder / "old.html").write_text("of an earlier run")

    results = collect(run, folder)

    assert results.report.read_text() == "<p>report</p>"
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "table.json"]
    assert results.decision.startswith("promoted to champion: ciede2000 changed by -4 ")
    assert "the untouched input" in results.decision
    assert outputs(run) == {
        "reinforce/reinforced_critic_adapter": str(adapter),
        "evaluate/evaluation": str(evaluation),
    }
