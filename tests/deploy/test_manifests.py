"""The manifests of deploy/: valid against the upstream schemas, closed by default, and in agreement with the stacks."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from components.chat.server import ServerSettings
from components.settings import load_settings
from tests.deploy.rendering import KUBECTL, OVERLAYS, ROOT, kubectl_kustomize, pod_templates, resources

pytestmark = pytest.mark.slow

NAMES = sorted(path.name for path in OVERLAYS.iterdir())
VERSION = "1.33"


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize("overlay", NAMES)
def test_every_object_is_valid_against_the_upstream_schema(overlay: str) -> None:
    objects = resources(overlay)
    assert len(objects) > 20
    for item in objects:
        kubernetes_validate.validate(item, VERSION, strict=True)


@pytest.mark.skipif(KUBECTL is None, reason="no kubectl on this machine")
@pytest.mark.parametrize("overlay", NAMES)
def test_kustomize_renders_the_overlay_as_it_is_meant(overlay: str) -> None:
    objects = kubectl_kustomize(overlay)
    for item in objects:
        kubernetes_validate.validate(item, VERSION, strict=True)
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "smartphotocrafter"
        if item["kind"] not in {"Namespace", "PriorityClass"}:
            assert item["metadata"]["namespace"] == "smartphotocrafter"
    images = {
        container["image"]
        for _, template in pod_templates(objects)
        for container in [*template["spec"]["containers"], *template["spec"].get("initContainers", [])]
    }
    assert "smartphotocrafter" not in images
    assert not [image for image in images if ":" not in image or image.endswith(":latest")]
    quota = named(objects, "ResourceQuota", "smartphotocrafter")
    assert quota["spec"]["hard"]["requests.nvidia.com/gpu"] == {"cpu": "0", "production": "16"}[overlay]


@pytest.mark.parametrize("overlay", NAMES)
def test_no_object_holds_a_secret(overlay: str) -> None:
    for item in resources(overlay):
        assert item["kind"] != "Secret"
        for _, template in pod_templates([item]):
            for container in template["spec"]["containers"]:
                for variable in container.get("env", []):
                    secret = any(word in variable["name"] for word in ("PASSWORD", "SECRET", "KEY", "TOKEN", "URI"))
                    assert not (secret and "value" in variable), variable["name"]


@pytest.mark.parametrize("overlay", NAMES)
def test_pods_run_without_rights_and_say_how_they_are(overlay: str) -> None:
    for name, template in pod_templates(resources(overlay)):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], name
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert container["resources"]["limits"]["memory"], name


@pytest.mark.parametrize("overlay", NAMES)
def test_services_and_policies_select_pods_that_exist(overlay: str) -> None:
    objects = resources(overlay)
    labels = [template["metadata"]["labels"] for _, template in pod_templates(objects)]
    labels.append({"app.kubernetes.io/component": "stage"})  # set by pipelines/placement.py
    if overlay == "cpu":
        labels.append({"app.kubernetes.io/component": "model-server"})  # served by somebody else, or not at all
    selectors = [item["spec"]["selector"] for item in objects if item["kind"] == "Service"]
    for item in objects:
        if item["kind"] == "NetworkPolicy":
            rules = [*item["spec"].get("ingress", []), *item["spec"].get("egress", [])]
            peers = [peer for rule in rules for peer in [*rule.get("from", []), *rule.get("to", [])]]
            chosen = [item["spec"]["podSelector"], *(peer["podSelector"] for peer in peers if "podSelector" in peer)]
            selectors += [selector["matchLabels"] for selector in chosen if selector]
    assert len(selectors) > 6
    for selector in selectors:
        assert any(selector.items() <= present.items() for present in labels), selector


def test_everything_that_is_not_listed_is_denied() -> None:
    policy = named(resources("cpu"), "NetworkPolicy", "default-deny")
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_a_run_has_no_more_rights_than_it_needs() -> None:
    rules = named(resources("cpu"), "Role", "smartphotocrafter-run")["rules"]
    rights = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert not [right for right in rights if "*" in right]
    assert ("secrets", "get") not in rights
    assert not {resource for resource, _ in rights} & {"roles", "rolebindings", "serviceaccounts", "pods/exec"}


@pytest.mark.parametrize("overlay", NAMES)
def test_a_stage_may_do_nothing_in_the_namespace(overlay: str) -> None:
    objects = resources(overlay) if KUBECTL is None else kubectl_kustomize(overlay)
    stack = yaml.safe_load((ROOT / "configs" / "stacks" / "kubernetes.yaml").read_text())
    account = named(objects, "ServiceAccount", stack["stage_account"])
    assert account["automountServiceAccountToken"] is False
    bindings = [item for item in objects if item["kind"] in {"RoleBinding", "ClusterRoleBinding"}]
    bound = {subject["name"] for item in bindings for subject in item["subjects"]}
    assert bound == {"smartphotocrafter", "smartphotocrafter-submitter"}
    assert all(subject["kind"] == "ServiceAccount" for item in bindings for subject in item["subjects"])


def test_the_stack_asks_for_what_the_manifests_make() -> None:
    objects = resources("production")
    stack = yaml.safe_load((ROOT / "configs" / "stacks" / "kubernetes.yaml").read_text())
    assert named(objects, "ServiceAccount", stack["service_account"])
    components = stack["components"]
    assert components["orchestrator"]["configuration"]["service_account_name"] == stack["service_account"]
    assert components["step_operator"]["configuration"]["service_account_name"] == stack["stage_account"]
    for pods in stack["pods"].values():
        for claim in pods["claims"]:
            assert named(objects, "PersistentVolumeClaim", claim)
        if "priority_class" in pods:
            assert named(objects, "PriorityClass", pods["priority_class"])
    assert stack["variables"]["SPC_MLFLOW_URL"] == "http://mlflow.smartphotocrafter.svc:5000"
    assert named(objects, "Service", "mlflow")["spec"]["ports"][0]["port"] == 5000


@pytest.mark.parametrize("server", ["annotator", "judge"])
def test_the_production_profile_finds_its_model_servers(server: str) -> None:
    objects = resources("production")
    settings = load_settings(ROOT / "configs" / "gpu.yaml")
    clients = {"annotator": settings.annotate.client, "judge": settings.reinforce.rollouts.judge}
    client: ServerSettings = clients[server]
    host, port = client.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    service = named(objects, "Service", host)
    assert service["spec"]["ports"][0]["port"] == int(port)
    arguments = named(objects, "Deployment", host)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--served-model-name={client.model}" in arguments
