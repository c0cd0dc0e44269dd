"""The emulated cluster as one object: certificate, API server, controllers and kubelet in a thread of this process.

It speaks enough of the Kubernetes API for ZenML's orchestrator, `make doctor` and `make schedule` to work unchanged,
against real processes. It proves nothing about images, cgroups, cluster DNS, network policies or admission.
"""

import asyncio
import datetime
import ipaddress
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cluster.api import ADMINISTRATOR, ApiServer
from tests.cluster.controllers import Controllers
from tests.cluster.kubelet import Kubelet, image_environment, new_token
from tests.cluster.objects import CLUSTER_WIDE, KINDS, Key, Object, Store

Result = TypeVar("Result")
CONTEXT = "emulated"
ROOT = Path(__file__).resolve().parents[2]


class EmulatedCluster:
    """Two nodes, one with GPUs, and a namespace.

    Args:
        folder: for certificate, kubeconfig and the files of the pods.
        namespace: made at the start.
        gpus: of the node that has any.
    """

    def __init__(self, folder: Path, namespace: str = "smartphotocrafter", gpus: int = 2) -> None:
        self.folder, self.namespace = folder, namespace
        self.store, self.tokens = Store(), {}
        self.kubeconfig = folder / "kubeconfig"
        certificate, key = _certificate(folder)
        self._administrator = self.token(ADMINISTRATOR)
        self.kubelet = Kubelet(
            self.store, folder, image_environment(ROOT / "Dockerfile"), certificate, self._account_token
        )
        self.controllers = Controllers(self.store, self.kubelet)
        self.api = ApiServer(
            self.store,
            self.tokens,
            on_create=self.controllers.created,
            on_delete=self.controllers.deleted,
            on_evict=self.controllers.evicted,
            read_log=self.kubelet.log,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="emulated-cluster", daemon=True)
        self._thread.start()
        port = self.call(self.api.start(certificate, key))
        self.kubelet.port = port
        self._loop.call_soon_threadsafe(lambda: self.controllers.start(self.controllers.keep_time()))
        self._seed(gpus)
        self.write_kubeconfig(self.kubeconfig, self._administrator, port, certificate)

    def call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the cluster's thread and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=120)

    def apply(self, *items: Object) -> None:
        """Create objects as an administrator; what exists, and kinds that are not emulated, are passed over."""
        for item in items:
            resource = next((name for name, (_, kind) in KINDS.items() if kind == item["kind"]), None)
            if resource is None:
                continue
            namespace = None if resource in CLUSTER_WIDE else self.namespace
            if self.store.find(Key(resource, namespace, item["metadata"]["name"])) is None:
                self.store.create(resource, namespace, item)

    def token(self, user: str) -> str:
        """A new bearer token for a user."""
        token = new_token()
        self.tokens[token] = user
        return token

    def write_kubeconfig(
        self, path: Path, token: str, port: int | None = None, certificate: Path | None = None
    ) -> Path:
        """A kubeconfig whose only context logs in with ``token``."""
        server = {
            "server": f"https://127.0.0.1:{port or self.kubelet.port}",
            "certificate-authority": str(certificate or self.kubelet.certificate),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": CONTEXT,
            "clusters": [{"name": CONTEXT, "cluster": server}],
            "users": [{"name": CONTEXT, "user": {"token": token}}],
            "contexts": [
                {"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": self.namespace}}
            ],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def fire(self, cron_job: str) -> str | None:
        """Let a cron job fire now; the name of its job, or None where its rules forbid it."""

        async def fire() -> str | None:
            return self.controllers.fire(Key("cronjobs", self.namespace, cron_job))

        return self.call(fire())

    def stop(self) -> None:
        """End every pod and close the port."""
        self.call(self.kubelet.stop())
        self.call(self.controllers.stop())
        self.call(self.api.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def _account_token(self, account: str) -> str:
        return self.token(f"system:serviceaccount:{account}")

    def _seed(self, gpus: int) -> None:
        self.apply({"kind": "Namespace", "metadata": {"name": self.namespace}})
        size = {"cpu": "32", "memory": "256Gi"}
        for name, extra, taints in (
            ("cpu", {}, []),
            ("gpu", {"nvidia.com/gpu": str(gpus)}, [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]),
        ):
            node = {
                "kind": "Node",
                "metadata": {"name": f"{name}-0", "labels": {"smartphotocrafter/pool": name}},
                "spec": {"taints": taints},
                "status": {"allocatable": size | extra},
            }
            self.apply(node)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for the loopback address, valid for a day."""
    folder.mkdir(parents=True, exist_ok=True)
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emulated-cluster")])
    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    paths = folder / "ca.crt", folder / "server.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths
