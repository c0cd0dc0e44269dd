"""`make doctor`: checks what a run on a stack needs before anything is submitted, and says what to do about each fault.

Knows neither ZenML nor MLflow as libraries, so that a wrong installation, address or key is a finding like any other
and not a traceback; servers are asked over HTTP. The checks of the cluster itself are in pipelines/doctor_cluster.py.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import httpx

from components.data.versioning import DATA_FILE, DataUnavailable, data_revision
from pipelines.environment import ROOT, State
from pipelines.place import elsewhere, moved_from
from pipelines.stack_file import PodsFile, StackFile

_SECONDS = 10.0
_DISK_GB = 5.0


class Finding(NamedTuple):
    """The outcome of one check."""

    check: str
    ok: bool
    detail: str
    remedy: str = ""
    """What to do; empty where nothing has to be done."""


Check = Callable[[], Finding]


class Unhealthy(Exception):  # noqa: N818  a finding on its way up
    """A check that failed; carries what was found and what to do."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail, self.remedy = detail, remedy


class ZenServer:
    """The ZenML server of a stack, asked over HTTP.

    Args:
        url: its address.
        variable: the environment variable with the API key.
    """

    def __init__(self, url: str, variable: str) -> None:
        self.url, self.variable = url.rstrip("/"), variable
        self._token = ""

    def log_in(self) -> str:
        """Log in with the API key; returns what was found.

        Raises:
            Unhealthy: no answer, no key, or a key that is not taken.
        """
        try:
            info = httpx.get(f"{self.url}/api/v1/info", timeout=_SECONDS)
            info.raise_for_status()
            version = str(info.json()["version"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise Unhealthy(
                f"{self.url} does not answer as a ZenML server does: {type(error).__name__}: {error}",
                "start the server, or correct SPC_ZENML_URL",
            ) from error
        if not (key := os.environ.get(self.variable)):
            raise Unhealthy(f"{self.variable} is not set", "`zenml service-account create NAME` prints an API key")
        answer = httpx.post(
            f"{self.url}/api/v1/login", data={"grant_type": "zenml-api-key", "password": key}, timeout=_SECONDS
        )
        if answer.status_code != 200:
            raise Unhealthy(
                f"{self.url} refuses the API key in {self.variable} ({answer.status_code})",
                "it was rotated or deleted: `zenml service-account api-key ACCOUNT rotate NAME` makes another",
            )
        self._token = answer.json()["access_token"]
        return f"ZenML {version} at {self.url}, the API key is taken"

    def secret(self, name: str) -> dict[str, str] | None:
        """The values of one of the server's secrets; None if there is no such secret."""
        found = self._get("/secrets", name=name)["items"]
        if not found:
            return None
        return dict(self._get(f"/secrets/{found[0]['id']}")["body"]["values"])

    def _get(self, path: str, **query: str) -> Any:
        answer = httpx.get(
            f"{self.url}/api/v1{path}",
            params=query,
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=_SECONDS,
        )
        answer.raise_for_status()
        return answer.json()


def examine(stack: StackFile, state: State, settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Every check of ``stack``, one after the other; a check that cannot be made is a finding, too.

    Args:
        settings: the checked configuration that is to run, as plain data.
    """
    yield _run("data", lambda: _data(state, stack))
    yield _run("disk", lambda: _disk(state))
    if not state.server:
        yield _run("place", lambda: _place(state))
    if stack.server is None:
        return
    server = ZenServer(stack.server.url, stack.server.api_key_variable)
    yield (reached := _run("zenml server", server.log_in))
    credentials: dict[str, dict[str, str]] = {}
    for name, variables in stack.secrets.items():
        yield _run(f"secret {name}", partial(_secret, server, reached.ok, name, variables, credentials))
    components = {kind: component.configuration for kind, component in stack.components.items()}
    if path := str(components.get("artifact_store", {}).get("path", "")):
        secret = credentials.get(str(components["artifact_store"].get("authentication_secret", "")), {})
        endpoint = (components["artifact_store"].get("client_kwargs") or {}).get("endpoint_url")
        yield _run("artifact store", lambda: _bucket(path, endpoint, secret))
    if url := str(components.get("experiment_tracker", {}).get("tracking_uri", "")):
        yield _run("mlflow", lambda: _mlflow(url, credentials.get("spc-mlflow", {})))
    for title, (stage, url) in _model_servers(settings).items():
        yield Finding(title, True, f"the stage {stage} will ask {url} (asked by the pods only)")
    for name, pods in stack.pods.items():
        if pods.gpus and pods.gpu_model:
            yield _run(f"memory of {name}", partial(_memory, pods, settings))
    if stack.namespace:
        from pipelines.doctor_cluster import examine_cluster

        yield from examine_cluster(stack, settings)


def _run(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except Unhealthy as fault:
        return Finding(name, False, fault.detail, fault.remedy)
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}", "the check itself could not be made, see there")


def _data(state: State, stack: StackFile) -> str:
    try:
        revision = data_revision(ROOT)
    except DataUnavailable as error:
        raise Unhealthy(str(error), f"restore {DATA_FILE}: `git checkout {DATA_FILE}`") from error
    if not (ROOT / "data" / "photos").is_dir():
        raise Unhealthy(f"{ROOT / 'data'} is not there (revision {revision})", "`make data` fetches it")
    return f"revision {revision}"


def _disk(state: State) -> str:
    state.folder.mkdir(parents=True, exist_ok=True)
    if not os.access(state.folder, os.W_OK):
        raise Unhealthy(f"{state.folder} cannot be written", "set SPC_STATE to a folder that can")
    free = shutil.disk_usage(state.folder).free / 1e9
    if free < _DISK_GB:
        raise Unhealthy(
            f"{free:.1f} GB free in {state.folder}, a run may need {_DISK_GB:g}",
            "free some, or set SPC_STATE elsewhere",
        )
    return f"{free:.0f} GB free in {state.folder}"


def _place(state: State) -> str:
    if old := moved_from(state):
        raise Unhealthy(
            f"{state.folder} was {old}, which its stores still name", "any command of the pipelines mends it"
        )
    if found := elsewhere(state):
        raise Unhealthy(
            f"{len(found)} stored results lie elsewhere, the first at {found[0]}",
            f"move the folder back to where it was; or begin anew: `mv {state.folder} {state.folder}-old`",
        )
    return f"all that is stored lies in {state.folder}"


def _secret(
    server: ZenServer, reached: bool, name: str, variables: Mapping[str, str], into: dict[str, dict[str, str]]
) -> str:
    """Values from the environment before those the server has, as `make stack` will store them."""
    values = {key: os.environ[variable] for key, variable in variables.items() if os.environ.get(variable)}
    stored = server.secret(name) if reached else None
    into[name] = (stored or {}) | values
    if missing := sorted(variables[key] for key in variables if not into[name].get(key)):
        raise Unhealthy(
            f"neither the ZenML server nor the environment has {', '.join(missing)}",
            f"set {', '.join(missing)} and run `make stack`, once",
        )
    return "on the server" if not values else "in the environment; `make stack` stores it on the server"


def _bucket(path: str, endpoint: str | None, credentials: Mapping[str, str]) -> str:
    """Write, read and delete one small object, as a run will."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = path.removeprefix("s3://").partition("/")
    client = boto3.client(
        "s3",
        endpoint_url=endpoint or None,
        aws_access_key_id=credentials.get("aws_access_key_id"),
        aws_secret_access_key=credentials.get("aws_secret_access_key"),
        config=Config(connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"max_attempts": 2}),
    )
    key = f"{prefix}/.doctor-{uuid.uuid4().hex}".lstrip("/")
    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"doctor")
        read = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        client.delete_object(Bucket=bucket, Key=key)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        remedy = {
            "NoSuchBucket": f"create the bucket {bucket}, or correct SPC_ARTIFACTS",
            "AccessDenied": f"give the key the rights s3:PutObject, GetObject and DeleteObject on {bucket}",
            "InvalidAccessKeyId": "correct SPC_S3_ACCESS_KEY_ID and run `make stack`",
            "SignatureDoesNotMatch": "correct SPC_S3_SECRET_ACCESS_KEY and run `make stack`",
        }.get(code, "see the message of the store")
        raise Unhealthy(f"{path}: {error}", remedy) from error
    except BotoCoreError as error:
        raise Unhealthy(
            f"{path} cannot be reached: {error}", "correct SPC_S3_ENDPOINT, or open the way to it"
        ) from error
    if read != b"doctor":
        raise Unhealthy(f"{path} gives back something else than was written", "is there a cache in between?")
    return f"{path} can be written, read and deleted"


def _mlflow(url: str, credentials: Mapping[str, str]) -> str:
    login = (credentials["username"], credentials["password"]) if {"username", "password"} <= set(credentials) else None
    query = f"{url.rstrip('/')}/api/2.0/mlflow/experiments/search"
    try:
        answer = httpx.post(query, json={"max_results": 1}, auth=login, timeout=_SECONDS)
    except httpx.HTTPError as error:
        raise Unhealthy(
            f"{url} does not answer: {type(error).__name__}: {error}",
            "correct SPC_MLFLOW_URL. This machine and the pods use the same address: give MLflow an ingress, or submit "
            "from where the address resolves",
        ) from error
    if answer.status_code in (401, 403):
        raise Unhealthy(
            f"{url} refuses the log-in ({answer.status_code})",
            "correct SPC_MLFLOW_USERNAME and SPC_MLFLOW_PASSWORD and run `make stack`",
        )
    if answer.status_code != 200:
        raise Unhealthy(
            f"{url} answers {answer.status_code}: {answer.text[:200]}",
            "look into the server's log; an unknown host has to be in MLFLOW_SERVER_ALLOWED_HOSTS",
        )
    return f"{url} takes the log-in"


def _memory(pods: PodsFile, settings: Mapping[str, Any]) -> str:
    """Whether the training stages fit into the GPUs of their pods, with the base models under data/base.

    A stage uses as many GPUs as it has processes, on as many nodes as it asks for, and holds the models as its
    `compute.sharding` says.
    """
    from components.models.published import PUBLISHED, read_configurations
    from components.planning.plan import make_plan
    from components.planning.settings import PlanSettings
    from components.planning.stages import STAGES
    from components.settings import Settings

    base = ROOT / "data" / "base"
    computes = {name: settings[name]["compute"] for name in STAGES}
    plans = []
    shapes = {name: (compute["processes"], compute["nodes"]) for name, compute in computes.items()}
    for processes, nodes in sorted(set(shapes.values())):
        names = [name for name, shape in shapes.items() if shape == (processes, nodes)]
        if processes > pods.gpus:
            raise Unhealthy(
                f"{names[0]} is to run in {processes} processes, one for each GPU, and a pod has {pods.gpus}",
                f"set {names[0]}.compute.processes to {pods.gpus}, or give the pods {processes} GPUs in the stack file",
            )
        count = processes * nodes
        wanted = PlanSettings(gpu=pods.gpu_model, count=count, shardings=("ddp",) if count == 1 else ("ddp", "fsdp"))
        try:
            plan = make_plan(
                Settings.model_validate(settings),
                read_configurations(base if base.is_dir() else PUBLISHED),
                wanted,
                names,
            )
        except ValueError as error:
            raise Unhealthy(str(error), "correct SPC_GPU_MODEL, or gpu_model in the stack file") from error
        plans += [(count, stage) for stage in plan.stages]
    needs = []
    for count, stage in plans:
        compute = computes[stage.name]
        sharding = compute["sharding"] if count > 1 else "ddp"
        as_set = next(
            option
            for option in stage.options
            if option.checkpointing == compute["gradient_checkpointing"] and option.sharding == sharding
        )
        needs.append(f"{stage.name} {as_set.peak / 2**30:.1f} of {as_set.capacity / 2**30:.1f} GiB")
        if not as_set.fits:
            raise Unhealthy(
                f"{needs[-1]} on each of {count} {pods.gpu_model}",
                "`smartphotocrafter plan --config CONFIG --gpu MODEL --count N` shows by what. Set "
                f"{stage.name}.compute.gradient_checkpointing or a smaller batch, share the models out "
                f"({stage.name}.compute: processes, sharding: fsdp), or ask for more or larger GPUs",
            )
    return f"{pods.gpus} {pods.gpu_model}: {', '.join(needs)}"


def _model_servers(settings: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Servers that the profile needs, with the stage that asks and the address."""
    servers = {}
    annotate = settings.get("annotate", {})
    if annotate.get("annotator") == "openai":
        servers["annotation server"] = ("annotate", str(annotate["client"]["base_url"]))
    judge = settings.get("reinforce", {}).get("rollouts", {}).get("judge", {})
    if judge.get("kind") == "mllm":
        servers["judge"] = ("reinforce", str(judge["base_url"]))
    return servers


def in_lines(finding: Finding) -> str:
    """The finding for the terminal: one line, and one more with the remedy."""
    line = f"  {'ok  ' if finding.ok else 'FAIL'}  {finding.check:<26}{finding.detail}"
    return line if finding.ok or not finding.remedy else f"{line}\n        {'':<26}-> {finding.remedy}"
