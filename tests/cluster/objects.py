"""The objects of the emulated cluster: stored in memory, selected, patched and defaulted as the real server does."""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

Object = dict[str, Any]
KINDS = {
    "namespaces": ("v1", "Namespace"),
    "nodes": ("v1", "Node"),
    "serviceaccounts": ("v1", "ServiceAccount"),
    "secrets": ("v1", "Secret"),
    "configmaps": ("v1", "ConfigMap"),
    "services": ("v1", "Service"),
    "events": ("v1", "Event"),
    "pods": ("v1", "Pod"),
    "persistentvolumeclaims": ("v1", "PersistentVolumeClaim"),
    "resourcequotas": ("v1", "ResourceQuota"),
    "limitranges": ("v1", "LimitRange"),
    "jobs": ("batch/v1", "Job"),
    "cronjobs": ("batch/v1", "CronJob"),
    "roles": ("rbac.authorization.k8s.io/v1", "Role"),
    "rolebindings": ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    "priorityclasses": ("scheduling.k8s.io/v1", "PriorityClass"),
}
"""API version and kind by the plural in the address."""
CLUSTER_WIDE = {"namespaces", "nodes", "priorityclasses"}


class Key(NamedTuple):
    """What identifies an object."""

    resource: str
    namespace: str | None
    name: str


class ApiError(Exception):
    """An answer that is an error: HTTP status, the machine-readable reason and a message."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message

    def body(self) -> Object:
        """The `Status` object that the API server answers with."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": self.reason,
            "message": self.message,
            "code": self.code,
        }


def now() -> str:
    """The time as the API writes it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


class Store:
    """All objects of the cluster."""

    def __init__(self) -> None:
        self._objects: dict[Key, Object] = {}
        self._version = 0

    def create(self, resource: str, namespace: str | None, item: Object) -> Object:
        """Add an object with what the server fills in.

        Raises:
            ApiError: 409, it exists; 404, the namespace does not.
        """
        if namespace is not None and Key("namespaces", None, namespace) not in self._objects:
            raise ApiError(404, "NotFound", f'namespaces "{namespace}" not found')
        metadata = item.setdefault("metadata", {})
        if "name" not in metadata and "generateName" in metadata:
            metadata["name"] = f"{metadata['generateName']}{uuid.uuid4().hex[:5]}"
        key = Key(resource, namespace, metadata["name"])
        if key in self._objects:
            raise ApiError(409, "AlreadyExists", f'{resource} "{key.name}" already exists')
        item["apiVersion"], item["kind"] = KINDS[resource]
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        if namespace is not None:
            metadata["namespace"] = namespace
        _default(resource, item)
        self._objects[key] = item
        self.touch(item)
        return item

    def touch(self, item: Object) -> None:
        """Give the object a new resource version."""
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)

    def get(self, key: Key) -> Object:
        """The object itself, not a copy.

        Raises:
            ApiError: 404, there is none.
        """
        if key not in self._objects:
            raise ApiError(404, "NotFound", f'{key.resource} "{key.name}" not found')
        return self._objects[key]

    def find(self, key: Key) -> Object | None:
        """The object, or None."""
        return self._objects.get(key)

    def remove(self, key: Key) -> None:
        """Forget the object, if it is there."""
        self._objects.pop(key, None)

    def select(
        self, resource: str, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> list[tuple[Key, Object]]:
        """Objects of a resource, of one namespace or all, by label and field selectors."""
        return [
            (key, item)
            for key, item in list(self._objects.items())
            if key.resource == resource
            and namespace in (None, key.namespace)
            and matches_labels(item["metadata"].get("labels") or {}, labels)
            and _matches_fields(item, fields)
        ]

    def owned_by(self, uid: str) -> Iterator[Key]:
        """Keys of the objects that name ``uid`` as an owner."""
        for key, item in list(self._objects.items()):
            if any(reference["uid"] == uid for reference in item["metadata"].get("ownerReferences") or []):
                yield key


def matches_labels(labels: dict[str, str], selector: str) -> bool:
    """Equality-based, set-based and existence requirements, all of which must hold."""
    for requirement in re.split(r",(?![^(]*\))", selector):
        text = requirement.strip()
        if not text:
            continue
        if found := re.fullmatch(r"(\S+)\s+(in|notin)\s+\((.*)\)", text):
            inside = labels.get(found[1]) in {value.strip() for value in found[3].split(",")}
            holds = inside == (found[2] == "in")
        elif "!=" in text:
            name, value = text.split("!=", 1)
            holds = labels.get(name) != value
        elif "=" in text:
            name, value = text.replace("==", "=").split("=", 1)
            holds = labels.get(name) == value
        else:
            holds = (text.removeprefix("!") in labels) != text.startswith("!")
        if not holds:
            return False
    return True


def merge(item: Object, patch: Object) -> None:
    """Apply a JSON merge patch (RFC 7386) in place; identity and status stay the server's."""
    for name, value in patch.items():
        if value is None:
            item.pop(name, None)
        elif isinstance(value, dict) and isinstance(item.get(name), dict):
            merge(item[name], value)
        else:
            item[name] = value


def _matches_fields(item: Object, selector: str) -> bool:
    for requirement in filter(None, selector.split(",")):
        negated = "!=" in requirement
        path, value = re.split(r"!=|==|=", requirement, maxsplit=1)
        found: Any = item
        for part in path.split("."):
            found = (found or {}).get(part)
        if ((found or "") == value) == negated:
            return False
    return True


def _default(resource: str, item: Object) -> None:
    """What the API server fills in and clients rely on."""
    if resource == "cronjobs":
        item["spec"].setdefault("concurrencyPolicy", "Allow")
        item["spec"].setdefault("suspend", False)
        item.setdefault("status", {})
        _default_job(item["spec"]["jobTemplate"]["spec"])
    if resource == "jobs":
        _default_job(item["spec"])
        item["status"] = {"startTime": now(), "active": 0, "succeeded": 0, "failed": 0, "conditions": []}
    if resource == "pods":
        item["status"] = {"phase": "Pending", "conditions": [], "containerStatuses": []}
        item["spec"].setdefault("serviceAccountName", "default")
    if resource == "persistentvolumeclaims":
        item["status"] = {"phase": "Bound"}
    if resource == "resourcequotas":
        item["status"] = {"hard": dict(item["spec"]["hard"]), "used": dict.fromkeys(item["spec"]["hard"], "0")}


def _default_job(spec: Object) -> None:
    for name, value in {"backoffLimit": 6, "completionMode": "NonIndexed", "parallelism": 1, "completions": 1}.items():
        spec.setdefault(name, value)
    for rule in (spec.get("podFailurePolicy") or {}).get("rules", []):
        for condition in rule.setdefault("onPodConditions", []):  # the client that ZenML pins cannot read one without
            condition.setdefault("status", "True")
