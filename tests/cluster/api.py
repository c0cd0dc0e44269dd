"""The API server of the emulated cluster: HTTP over TLS on the loopback address, bearer tokens, roles, no watches.

A request is allowed by the roles that are bound to its account, as on a real cluster; the administrator's token may do
everything. That makes the rights in deploy/base/access.yaml testable: a run that needs more than they give fails here.
"""

import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.cluster.objects import CLUSTER_WIDE, KINDS, ApiError, Key, Object, Store, merge

ADMINISTRATOR = "system:admin"
_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
_VERSION = dict.fromkeys(
    ("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "platform"), "emulated"
) | {
    "major": "1",
    "minor": "33",
    "gitVersion": "v1.33.0+emulated",
}
_AUTOMATIC = {"resourceVersion", "uid", "creationTimestamp"}


class ApiServer:
    """Routes requests to the store and tells the controllers what was created or is to go.

    Args:
        on_create: called with key and object after it was stored.
        on_delete: called with key, whether dependents are orphaned, and the time of grace of a pod in seconds (None:
            its own); it removes the object.
        on_evict: called with the key of a pod whose node is drained.
        read_log: the output of a pod so far; None while there is none.
    """

    def __init__(
        self,
        store: Store,
        tokens: dict[str, str],
        on_create: Callable[[Key, Object], None],
        on_delete: Callable[[Key, bool, float | None], None],
        on_evict: Callable[[Key], None],
        read_log: Callable[[Key], bytes | None],
    ) -> None:
        self.store, self.tokens = store, tokens
        self.proxied: dict[str, Callable[[str, str, Any], Any]] = {}
        """What answers for services that are asked through this server, by `name:port`: method, path, body to JSON."""
        self.requests: list[tuple[str, str, str, int]] = []
        """User, method, path and status of every request."""
        self._on_create, self._on_delete, self._on_evict = on_create, on_delete, on_evict
        self._read_log = read_log
        self._runner: web.AppRunner | None = None

    async def start(self, certificate: Path, key: Path) -> int:
        """Listen on a free port of the loopback address, which is returned."""
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        assert site._server is not None
        return int(site._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        user = self.tokens.get(token) if scheme.lower() == "bearer" else None
        body = json.loads(await request.read()) if request.can_read_body else None
        try:
            if user is None:
                raise ApiError(401, "Unauthorized", "Unauthorized")
            answer = self._route(request, user, body)
        except ApiError as error:
            answer = web.json_response(error.body(), status=error.code)
        self.requests.append((user or "", request.method, request.path, answer.status))
        return answer

    def _route(self, request: web.Request, user: str, body: Any) -> web.Response:
        parts = [part for part in request.path.split("/") if part]
        if parts == ["version"]:
            return web.json_response(_VERSION)
        if parts[:2] == ["api", "v1"]:
            group, rest = "", parts[2:]
        elif parts[:1] == ["apis"] and len(parts) > 3:
            group, rest = parts[1], parts[3:]
        else:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        if rest == ["selfsubjectaccessreviews"]:
            return self._review(user, body)
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource, name, sub = [*rest, None, None][:3]
        if resource not in KINDS or (namespace is None and name and resource not in CLUSTER_WIDE):
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        verb = _VERBS.get(request.method, "get" if name else "list")
        self._require(user, verb, group, f"{resource}/{sub}" if sub else resource, namespace)
        if resource == "services" and sub == "proxy" and name in self.proxied:
            return web.json_response(self.proxied[name](request.method, f"/{'/'.join(rest[3:])}", body))
        if request.method == "POST" and sub == "eviction":
            self.store.get(Key("pods", namespace, str(name)))
            self._on_evict(Key("pods", namespace, str(name)))
            return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"}, status=201)
        if request.method == "POST":
            return self._create(resource, namespace, body)
        if name is None:
            return self._list(resource, namespace, request.query)
        return self._one(Key(resource, namespace, name), sub, request, body)

    def _create(self, resource: str, namespace: str | None, body: Object) -> web.Response:
        item = self.store.create(resource, namespace, body)
        self._on_create(Key(resource, namespace, item["metadata"]["name"]), item)
        return web.json_response(item, status=201)

    def _list(self, resource: str, namespace: str | None, query: Any) -> web.Response:
        found = self.store.select(resource, namespace, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        version, kind = KINDS[resource]
        items = [item for _, item in found]
        return web.json_response(
            {"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items}
        )

    def _one(self, key: Key, sub: str | None, request: web.Request, body: Any) -> web.Response:
        item = self.store.get(key)
        if request.method == "GET" and sub == "log":
            text = self._read_log(key)
            if text is None:
                raise ApiError(400, "BadRequest", f'container in pod "{key.name}" is waiting to start')
            return web.Response(body=text, content_type="text/plain")
        if request.method in ("PATCH", "PUT"):
            for name in _AUTOMATIC:
                (body.get("metadata") or {}).pop(name, None)
            merge(item, body)
            self.store.touch(item)
        elif request.method == "DELETE":
            options = body if isinstance(body, dict) else {}
            policy = request.query.get("propagationPolicy") or options.get("propagationPolicy")
            orphan = policy == "Orphan" or (policy is None and key.resource == "jobs")
            grace = request.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
            self._on_delete(key, orphan, None if grace is None else float(grace))
        return web.json_response(item)

    def _review(self, user: str, body: Object) -> web.Response:
        asked = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, [asked["resource"], asked.get("subresource")]))
        allowed = self.allowed(user, asked["verb"], asked.get("group") or "", resource, asked.get("namespace"))
        return web.json_response({**body, "status": {"allowed": allowed}}, status=201)

    def _require(self, user: str, verb: str, group: str, resource: str, namespace: str | None) -> None:
        if not self.allowed(user, verb, group, resource, namespace):
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            raise ApiError(
                403, "Forbidden", f'{resource} is forbidden: User "{user}" cannot {verb} resource "{resource}"{where}'
            )

    def allowed(self, user: str, verb: str, group: str, resource: str, namespace: str | None) -> bool:
        """Whether a role that is bound to ``user`` in the namespace gives the right."""
        if user == ADMINISTRATOR:
            return True
        for _, binding in self.store.select("rolebindings", namespace) if namespace else []:
            subjects = {
                f"system:serviceaccount:{subject.get('namespace', namespace)}:{subject['name']}"
                for subject in binding.get("subjects") or []
            }
            role = self.store.find(Key("roles", namespace, binding["roleRef"]["name"]))
            if user not in subjects or role is None:
                continue
            for rule in role["rules"]:
                if group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]:
                    return True
        return False
