"""The environment that the stacks of a cluster ask for, with values that reach nothing."""

import pytest

VARIABLES = {
    "SPC_ZENML_URL": "http://127.0.0.1:9",
    "SPC_KUBE_CONTEXT": "nowhere",
    "SPC_ARTIFACTS": "s3://artifacts/spc",
    "SPC_REGISTRY": "registry.example.org/team",
}


def cluster_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what configs/stacks/kubernetes.yaml and kubeflow.yaml need to be read."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
