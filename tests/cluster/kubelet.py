"""Scheduler and kubelet of the emulated cluster: pods become processes of this machine.

A pod gets the first node that has its labels, whose taints it tolerates and that has the GPUs it asks for. Its command
runs in namespaces of its own (mounts, processes, host name) with the environment of the image, /app, /tmp and the
mount points private to it, and the files of its service account. The image is never fetched: this virtual environment
stands for it. CPU and memory limits, users and the network are not enforced; all pods have the loopback address, and
/etc/hosts knows them by their names and by those that headless services give them.
"""

import asyncio
import base64
import os
import re
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster.objects import Key, Object, Store, now

_SERVICE_ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
_GPU = "nvidia.com/gpu"
_GRACE = 5.0  # seconds; the real default is 30
_SCRIPT = f"""
account={_SERVICE_ACCOUNT}; hostname "$1"; mount -t tmpfs tmpfs /run
mkdir -p $account; mount --bind "$2" $account; mount --bind "$3" /app; mount --bind "$4" /etc/hosts
tmp=$5; shift 5
while [ "$1" != -- ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done
shift; mount --bind "$tmp" /tmp; cd /app; exec "$@"
"""
MOUNT_POINTS = ("/app", "/state")
"""Folders that must exist on this machine for pods to mount over them."""


class _Running(NamedTuple):
    process: asyncio.subprocess.Process
    node: str
    gpus: int


class ConfigError(Exception):
    """A pod refers to something that is not there."""


class Kubelet:
    """Runs pods.

    Args:
        folder: where the files of the pods lie.
        image_environment: of every container, as the Dockerfile sets it.
        issue_token: gives a token for an account, `namespace:name`.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        image_environment: dict[str, str],
        certificate: Path,
        issue_token: Callable[[str], str],
    ) -> None:
        self.store, self.folder, self.certificate = store, folder, certificate
        self.image_environment, self.issue_token = image_environment, issue_token
        self.port = 0
        self._hosts = folder / "hosts"  # stands for the cluster's DNS, in all pods
        self._hosts.parent.mkdir(parents=True, exist_ok=True)
        self._hosts.write_text("127.0.0.1 localhost\n")
        self._running: dict[Key, _Running] = {}
        self._disrupted: set[Key] = set()

    def pods_on(self, node: str) -> list[Key]:
        """Pods that run on a node."""
        return [key for key, running in self._running.items() if running.node == node]

    def log(self, key: Key) -> bytes | None:
        """What a pod has printed; None before it started."""
        path = self.folder / "pods" / key.name / "log"
        return path.read_bytes() if path.is_file() else None

    async def run(self, key: Key, pod: Object) -> None:
        """Schedule a pod, run it to its end and keep its status up to date."""
        status, container = pod["status"], pod["spec"]["containers"][0]
        while (node := self._node_for(pod)) is None:
            status["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
            await asyncio.sleep(0.5)
            if self.store.find(key) is not pod:
                status["phase"] = "Failed"
                return
        pod["spec"]["nodeName"], status["hostIP"], status["podIP"] = node, "127.0.0.1", "127.0.0.1"
        status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
        report: Object = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
        status["containerStatuses"] = [report]
        report |= {"ready": False, "state": {"waiting": {"reason": "ContainerCreating"}}}
        try:
            command = self._command(key, pod)
            environment = self.image_environment | dict(self._environment(key, pod, container))
        except ConfigError as error:
            report["state"] = {"waiting": {"reason": "CreateContainerConfigError", "message": str(error)}}
            while self.store.find(key) is pod and status["phase"] == "Pending":
                await asyncio.sleep(0.5)
            status["phase"] = "Failed"
            return
        log_path = self.folder / "pods" / key.name / "log"
        with log_path.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self._running[key] = _Running(process, node, _gpus(pod))
        status |= {"phase": "Running", "startTime": now()}
        report |= {"ready": True, "started": True, "state": {"running": {"startedAt": status["startTime"]}}}
        try:
            code = await process.wait()
        except asyncio.CancelledError:  # the job has failed by another pod
            await self.end(key)
            status["phase"] = "Failed"
            raise
        finally:
            self._running.pop(key, None)
        code = 128 - code if code < 0 else code
        if key in self._disrupted:
            self._disrupted.discard(key)
            status["conditions"].append(
                {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            )
            code = code or 143
        terminated = {"exitCode": code, "startedAt": status["startTime"], "finishedAt": now()}
        report |= {"ready": False, "state": {"terminated": {"reason": "Error" if code else "Completed", **terminated}}}
        status["phase"] = "Failed" if code else "Succeeded"

    async def end(self, key: Key, grace: float | None = None, disruption: bool = False) -> None:
        """Ask a pod to end, and end it when its time of grace (None: 5 s) is over; 0 ends it at once."""
        grace = _GRACE if grace is None else grace
        running = self._running.get(key)
        if running is None:
            pod = self.store.find(key)
            if key.resource == "pods" and pod and pod["status"]["phase"] == "Pending":
                pod["status"]["phase"] = "Failed"
            return
        if disruption:
            self._disrupted.add(key)
        if grace:
            _signal(running.process.pid, signal.SIGTERM)
        else:
            _signal(running.process.pid, signal.SIGKILL)
        try:
            await asyncio.wait_for(asyncio.shield(running.process.wait()), grace or _GRACE)
        except TimeoutError:
            running.process.kill()
            await running.process.wait()

    async def stop(self) -> None:
        """End every pod at once."""
        await asyncio.gather(*(self.end(key, grace=0) for key in list(self._running)))

    def _node_for(self, pod: Object) -> str | None:
        spec = pod["spec"]
        for key, node in self.store.select("nodes"):
            labels = node["metadata"].get("labels") or {}
            if node["spec"].get("unschedulable") or not (spec.get("nodeSelector") or {}).items() <= labels.items():
                continue
            if not all(_tolerates(spec, taint) for taint in node["spec"].get("taints") or []):
                continue
            used = sum(running.gpus for running in self._running.values() if running.node == key.name)
            if _gpus(pod) <= int(node["status"]["allocatable"].get(_GPU, "0")) - used:
                return key.name
        return None

    def _command(self, key: Key, pod: Object) -> list[str]:
        spec, container = pod["spec"], pod["spec"]["containers"][0]
        folder = self.folder / "pods" / key.name
        account = folder / "account"
        for path in (account, folder / "app", folder / "tmp"):
            path.mkdir(parents=True)
        if self._mounts_token(key, spec):
            (account / "token").write_text(self.issue_token(f"{key.namespace}:{spec['serviceAccountName']}"))
            (account / "namespace").write_text(str(key.namespace))
            shutil.copy(self.certificate, account / "ca.crt")
        volumes = {volume["name"]: volume for volume in spec.get("volumes") or []}
        mounts: list[str] = []
        for mount in container.get("volumeMounts") or []:
            mounts += [str(self._volume(key, volumes[mount["name"]])), mount["mountPath"]]
        isolate = ["unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        run = [*(container.get("command") or []), *(container.get("args") or [])]
        private = [str(account), str(folder / "app"), str(self._hosts), str(folder / "tmp")]
        return [*isolate, "bash", "-ec", _SCRIPT, "pod", self._name(key, spec), *private, *mounts, "--", *run]

    def _mounts_token(self, key: Key, spec: Object) -> bool:
        """Whether the pod gets files of its account: what the pod says, or else the account, or else yes."""
        accounts = {found.name: account for found, account in self.store.select("serviceaccounts", key.namespace)}
        account = accounts.get(spec["serviceAccountName"], {})
        return spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))

    def publish(self, service: Key) -> None:
        """Make the names known that a headless service gives to pods which are there already."""
        for key, pod in self.store.select("pods", service.namespace):
            if pod["spec"].get("subdomain") == service.name and pod["spec"].get("nodeName"):
                self._name(key, pod["spec"])

    def _name(self, key: Key, spec: Object) -> str:
        """The host name of a pod; it is made known, and with it the name that the service of its subdomain gives it."""
        host = (spec.get("hostname") or key.name)[:63]
        names = [host]
        service = self.store.find(Key("services", key.namespace, spec.get("subdomain", "")))
        if service is not None and service["spec"].get("clusterIP") == "None":
            names.append(f"{host}.{service['metadata']['name']}.{key.namespace}.svc")
        with self._hosts.open("a") as file:
            file.write(f"127.0.0.1 {' '.join(names)}\n")
        return host

    def _volume(self, key: Key, volume: Object) -> Path:
        if claim := volume.get("persistentVolumeClaim"):
            if self.store.find(Key("persistentvolumeclaims", key.namespace, claim["claimName"])) is None:
                raise ConfigError(f'persistentvolumeclaim "{claim["claimName"]}" not found')
            folder = self.folder / "claims" / str(claim["claimName"])
        elif "emptyDir" in volume:
            folder = self.folder / "pods" / key.name / "volumes" / volume["name"]
        else:
            raise ConfigError(f"volumes of the kind of {volume} are not emulated")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _environment(self, key: Key, pod: Object, container: Object) -> Iterator[tuple[str, str]]:
        yield from {
            "HOME": "/tmp",
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.port),
            "HOSTNAME": key.name,
        }.items()
        for source in container.get("envFrom") or []:
            if reference := source.get("secretRef"):
                yield from self._secret(key, reference["name"]).items()
        for variable in container.get("env") or []:
            if (value := self._value(key, pod, variable)) is not None:
                yield variable["name"], value

    def _value(self, key: Key, pod: Object, variable: Object) -> str | None:
        source = variable.get("valueFrom")
        if not source:
            return str(variable.get("value") or "")
        if reference := source.get("secretKeyRef"):
            secret = self._secret(key, reference["name"])
            if reference["key"] not in secret and not reference.get("optional"):
                raise ConfigError(f'couldn\'t find key {reference["key"]} in secret "{reference["name"]}"')
            return secret.get(reference["key"])
        return _field(pod, source["fieldRef"]["fieldPath"])

    def _secret(self, key: Key, name: str) -> dict[str, str]:
        secret = self.store.find(Key("secrets", key.namespace, name))
        if secret is None:
            raise ConfigError(f'secret "{name}" not found')
        plain = dict(secret.get("stringData") or {})
        return {name: base64.b64decode(value).decode() for name, value in (secret.get("data") or {}).items()} | plain


def image_environment(dockerfile: Path) -> dict[str, str]:
    """What ENV in the last stage of the Dockerfile sets, with this virtual environment in the place of the image's."""
    text = re.sub(r"\\\n\s*", " ", dockerfile.read_text())
    (*_, line) = re.findall(r"^ENV (.+)$", text, re.MULTILINE)
    environment = dict(pair.split("=", 1) for pair in line.split())
    environment["PATH"] = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    return environment | {"LANG": "C.UTF-8", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def new_token() -> str:
    """A bearer token."""
    return secrets.token_urlsafe(24)


def _gpus(pod: Object) -> int:
    limits = [(container.get("resources") or {}).get("limits") or {} for container in pod["spec"]["containers"]]
    return sum(int(limit.get(_GPU, 0)) for limit in limits)


def _tolerates(spec: Object, taint: Object) -> bool:
    for toleration in spec.get("tolerations") or []:
        if toleration.get("effect") in (None, taint["effect"]) and (
            (toleration.get("operator") == "Exists" and toleration.get("key") in (None, taint["key"]))
            or (toleration.get("key") == taint["key"] and toleration.get("value") == taint.get("value"))
        ):
            return True
    return False


def _field(pod: Object, path: str) -> str:
    if found := re.fullmatch(r"metadata\.(annotations|labels)\['(.+)'\]", path):
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    value: Any = pod
    for part in path.split("."):
        value = (value or {}).get(part)
    return str(value or "")


def _signal(parent: int, number: int) -> None:
    """Send a signal to the container's first process, which is the child of `unshare`."""
    try:
        child = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0]
        os.kill(int(child), number)
    except (FileNotFoundError, IndexError, ProcessLookupError):
        return
