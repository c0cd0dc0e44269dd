"""What a run with every step in the cache imports: no library of models and measures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from zenml.integrations.registry import integration_registry

from pipelines.integrations import UNUSED

NOT_NEEDED = ("torch", "torchvision", "transformers", "diffusers", "peft", "sklearn", "skimage", "great_expectations")
CODE = """
import json, sys
from pipelines.environment import prepare

prepare()
from zenml.integrations.registry import integration_registry

import pipelines.results, pipelines.retrain, pipelines.rollback, pipelines.run, pipelines.training
from pipelines.integrations import leave_out_unused
from steps.publish import publish_champion

leave_out_unused()
integration_registry.activate_integrations()
print(json.dumps(list(sys.modules)))
"""


def test_integrations_that_are_left_out_are_there() -> None:
    assert set(UNUSED) <= set(integration_registry.list_integration_names), "does ZenML call them otherwise now?"


@pytest.mark.slow
def test_a_pipeline_is_built_without_the_libraries_of_its_steps(root: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SPC_STATE": str(tmp_path)}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert not set(NOT_NEEDED).intersection(json.loads(done.stdout.splitlines()[-1]))
