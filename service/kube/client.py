"""A small JSON client of the Kubernetes API, with the credentials that the official client finds.

Objects stay plain dicts: decoding 300 pods into the client's typed models takes ten times as long. Every request
has a short timeout, and a cluster that does not answer is one error, `ClusterUnavailable`, whatever the cause.
"""

from __future__ import annotations

import json
import logging
import os
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from typing import cast
from urllib.parse import quote, urlencode

from kubernetes import client, config

from service.errors import ClusterUnavailable, OperationFailed, StartupError
from service.kube.connections import Connections, Request
from service.kube.types import Object

log = logging.getLogger(__name__)

METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
JSON = "application/json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PAGE = 500

# An answer of 503 must come within 5 seconds while Kubernetes is away: connect and read stay below that together.
TIMEOUT = (1.0, 3.0)


class Conflict(Exception):
    """409: the object exists already, or is not at the version that the write named."""


class Gone(Exception):
    """410: what a watch or a page wanted to go on from has been compacted away."""


def path(group: str, namespace: str, kind: str, name: str = "", sub: str = "") -> str:
    """The path of a namespaced object or collection; `group` is "v1" or such as "apps/v1"."""
    root = f"/api/{group}" if group == "v1" else f"/apis/{group}"
    parts = [root, "namespaces", namespace, kind, *([quote(name, safe="")] if name else []), *([sub] if sub else [])]
    return "/".join(parts)


class Kube:
    """Safe for threads; to be made after a fork, as sockets do not survive one."""

    def __init__(self, connections: int = 64) -> None:
        """Up to so many `connections` are kept while nobody needs them."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            try:
                # The client itself reads the variable when it is imported, which is too early for tests.
                file = os.environ.get("KUBECONFIG")
                config.load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
            except config.ConfigException as error:
                raise StartupError(
                    f"no Kubernetes to talk to: neither in a pod, nor by KUBECONFIG ({error})"
                ) from error
        self._configuration = configuration
        self._connections = Connections(configuration.host, _tls(configuration), connections)

    def get(self, path: str, *, metadata: bool = False, **query: str | int) -> Object | None:
        """The object at `path` (or only its metadata), None where there is none."""
        return self._json("GET", path, query, accept=METADATA if metadata else JSON)

    def get_all(self, targets: Sequence[str], *, metadata: bool = False) -> list[Object | None]:
        """The objects at several paths, with their queries, read side by side; None for each that is not there."""
        requests = [self._request("GET", target, {}, accept=METADATA if metadata else JSON) for target in targets]
        return [
            self._parsed(status, body, target)
            for target, (status, body) in zip(targets, self._asked(requests), strict=True)
        ]

    def all(self, path: str, *, metadata: bool = False, **query: str | int) -> list[Object]:
        """Every object of a collection, fetched by pages."""
        return self.listed(path, metadata=metadata, **query)[0]

    def listed(self, path: str, *, metadata: bool = False, **query: str | int) -> tuple[list[Object], str]:
        """Every object of a collection, and the version from which a watch goes on."""
        items: list[Object] = []
        accept = METADATA_LIST if metadata else JSON
        page = {"limit": PAGE, **query}
        while True:
            found = self._json("GET", path, page, accept=accept) or {}
            items += found.get("items") or []
            about = found.get("metadata", {})
            if not about.get("continue"):
                return items, str(about.get("resourceVersion", ""))
            page = {**query, "limit": PAGE, "continue": about["continue"]}

    def text(self, path: str, **query: str | int) -> str | None:
        """A plain text answer such as a log; None where there is nothing to show (400 or 404)."""
        [(status, body)] = self._asked([self._request("GET", path, query)])
        return None if status in (400, 404) else self._checked(status, body, path).decode(errors="replace")

    def create(self, path: str, body: Object) -> Object:
        """Raises Conflict where it exists already."""
        made = self._json("POST", path, {}, body)
        if made is None:
            log.error("there is no %s to create in", path)
            raise OperationFailed("The namespace of the game servers does not exist; the operator has to make it.")
        return made

    def replace(self, path: str, body: Object) -> Object:
        """Raises Conflict where the object is no longer at `body`'s resourceVersion."""
        found = self._json("PUT", path, {}, body)
        if found is None:
            raise Conflict(path)
        return found

    def merge(self, path: str, body: Object) -> Object | None:
        """Merge `body` into an object (RFC 7386) and give it, None for one that is gone.

        Raises Conflict where `body` has a resourceVersion that is no longer the object's.
        """
        return self._json("PATCH", path, {}, body)

    def delete(self, path: str, *, uid: str = "", version: str = "") -> None:
        """Delete an object, if it is still this one; one that is gone already is no error."""
        wanted = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value}
        self._json("DELETE", path, {}, {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": wanted})

    def watch(self, path: str, version: str, *, metadata: bool, seconds: int, **query: str | int) -> Iterator[Object]:
        """The events after `version`, until the server ends the watch after `seconds`."""
        query = {
            **query,
            "watch": 1,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": seconds,
        }
        accept = METADATA if metadata else JSON
        try:
            # The API server sends a bookmark about once a minute; a longer silence is a dead connection.
            with self._connections.streamed(self._request("GET", path, query, accept=accept), (1.0, 90.0)) as response:
                if response.status != 200:
                    self._checked(response.status, response.read(), path)
                    raise ClusterUnavailable
                yield {"type": "CONNECTED"}
                rest = b""
                while chunk := response.read1(65536):
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield from (json.loads(line) for line in lines if line)
        except (HTTPException, OSError, json.JSONDecodeError) as error:
            raise ClusterUnavailable from error

    # -- requests ------------------------------------------------------------------------------------------

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int],
        body: Object | None = None,
        *,
        accept: str = JSON,
    ) -> Object | None:
        [(status, data)] = self._asked([self._request(method, path, query, body, accept)])
        return self._parsed(status, data, path)

    def _parsed(self, status: int, data: bytes, path: str) -> Object | None:
        if status == 404:
            return None
        try:
            return cast(Object, json.loads(self._checked(status, data, path)))
        except ValueError as error:
            raise ClusterUnavailable from error

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int],
        body: Object | None = None,
        accept: str = JSON,
    ) -> Request:
        headers = {"Accept": accept, "User-Agent": "gameserver-api"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else JSON
        if token := self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization"):
            headers["Authorization"] = token
        target = path + (f"?{urlencode(query)}" if query else "")
        return Request(method, target, headers, None if body is None else json.dumps(body).encode())

    def _asked(self, requests: Sequence[Request]) -> list[tuple[int, bytes]]:
        began = time.monotonic()
        try:
            try:
                return self._connections.ask(requests, TIMEOUT)
            except (HTTPException, OSError):
                # An API server that was started again has closed the idle connections; reads may be asked once more
                # on new ones. A write may not: the first may have been carried out.
                if any(one.method != "GET" for one in requests) or time.monotonic() - began > 0.5:
                    raise
            return self._connections.ask(requests, TIMEOUT)
        except (HTTPException, OSError) as error:
            raise ClusterUnavailable from error

    @staticmethod
    def _checked(status: int, body: bytes, path: str) -> bytes:
        if 200 <= status < 300:
            return body
        if status == 409:
            raise Conflict(path)
        if status == 410:
            raise Gone(path)
        message = body[:500].decode(errors="replace")
        if status in (401, 403):
            # Rights that the chart should have given: for the operator's log, the client can only try later.
            log.error("Kubernetes refuses the API's own account at %s: %s", path, message)
            raise ClusterUnavailable("Kubernetes refuses the API's own account; the operator has to mend that.")
        if status == 429 or status >= 500:
            log.warning("Kubernetes answered %d at %s: %s", status, path, message)
            raise ClusterUnavailable
        log.error("Kubernetes answered %d at %s: %s", status, path, message)
        raise OperationFailed("Kubernetes did not understand a request of the API; its log has the details.")


def _tls(configuration: client.Configuration) -> ssl.SSLContext:
    """What the official client would make of its configuration."""
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context
