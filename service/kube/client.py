"""A small JSON client of the Kubernetes API, which uses the official client's configuration and credentials.

Objects stay plain dicts: decoding 300 pods into the official client's typed models takes ten times as long. Every
request has a short timeout. If the cluster does not answer, the error is `ClusterUnavailable`, whatever the cause.
"""

from __future__ import annotations

import json
import logging
import os
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from typing import cast
from urllib.parse import quote, urlencode

from kubernetes import client, config

from service.errors import ClusterUnavailable, OperationFailed, StartupError
from service.kube.attach import Attachment, HandshakeRefused, attached
from service.kube.connections import Connections, Request
from service.kube.types import Object
from service.yamltext import as_yaml

log = logging.getLogger(__name__)

METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
JSON = "application/json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PAGE = 500

# While Kubernetes is unreachable, the API must answer 503 within 5 seconds: connect and read together take less.
TIMEOUT = (1.0, 3.0)


class Conflict(Exception):
    """409: the object already exists, or is not at the version that the write named."""


class Gone(Exception):
    """410: the version from which a watch or a list should continue is no longer stored."""


def path(group: str, namespace: str, kind: str, name: str = "", sub: str = "") -> str:
    """The path of a namespaced object or collection.

    Args:
        group: The API group and version, such as "v1" or "apps/v1".
        namespace: The namespace.
        kind: The kind's plural in lower case, such as "pods".
        name: The object's name; "" for the collection.
        sub: A subresource, such as "log".
    """
    root = f"/api/{group}" if group == "v1" else f"/apis/{group}"
    parts = [root, "namespaces", namespace, kind, *([quote(name, safe="")] if name else []), *([sub] if sub else [])]
    return "/".join(parts)


class Kube:
    """A client of the Kubernetes API. Thread-safe. Create it after a fork: sockets must not be shared.

    Every method may raise ClusterUnavailable, if Kubernetes does not answer, and OperationFailed, if it refuses a
    request as malformed.
    """

    def __init__(self, connections: int = 64) -> None:
        """Keep up to `connections` unused connections open. Raises StartupError if no cluster is configured."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            try:
                # The official client reads the variable on import, which is too early for tests.
                file = os.environ.get("KUBECONFIG")
                config.load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
            except config.ConfigException as error:
                raise StartupError(
                    f"no Kubernetes cluster is configured: this is not a pod, and KUBECONFIG names none ({error})"
                ) from error
        self._configuration = configuration
        self._connections = Connections(configuration.host, _tls(configuration), connections)

    def get(self, path: str, *, metadata: bool = False, **query: str | int) -> Object | None:
        """The object at `path` (with `metadata`, only its metadata), or None if it does not exist."""
        return self._json("GET", path, query, accept=METADATA if metadata else JSON)

    def get_all(self, targets: Sequence[str], *, metadata: bool = False) -> list[Object | None]:
        """The objects at several paths (with their queries), read in parallel; None for each that does not exist."""
        requests = [self._request("GET", target, {}, accept=METADATA if metadata else JSON) for target in targets]
        return [
            self._parsed(status, body, target)
            for target, (status, body) in zip(targets, self._send(requests), strict=True)
        ]

    def all(self, path: str, *, metadata: bool = False, **query: str | int) -> list[Object]:
        """Every object of a collection, read page by page."""
        return self.listed(path, metadata=metadata, **query)[0]

    def listed(self, path: str, *, metadata: bool = False, **query: str | int) -> tuple[list[Object], str]:
        """Every object of a collection, and the version from which a watch continues."""
        items: list[Object] = []
        accept = METADATA_LIST if metadata else JSON
        page = {"limit": PAGE, **query}
        while True:
            response = self._json("GET", path, page, accept=accept) or {}
            items += response.get("items") or []
            list_metadata = response.get("metadata", {})
            if not list_metadata.get("continue"):
                return items, str(list_metadata.get("resourceVersion", ""))
            page = {**query, "limit": PAGE, "continue": list_metadata["continue"]}

    def text(self, path: str, **query: str | int) -> str | None:
        """A plain text response such as a log; None if there is nothing to show (400 or 404)."""
        [(status, body)] = self._send([self._request("GET", path, query)])
        return None if status in (400, 404) else self._checked(status, body, path).decode(errors="replace")

    def create(self, path: str, body: Object) -> Object:
        """Create an object and return it. Raises Conflict if it already exists."""
        created = self._json("POST", path, {}, body)
        if created is None:
            log.error("cannot create an object: %s does not exist", path)
            raise OperationFailed("The namespace of the game servers does not exist. The operator has to create it.")
        return created

    def replace(self, path: str, body: Object) -> Object:
        """Replace an object and return it. Raises Conflict if it is no longer at `body`'s resourceVersion."""
        replaced = self._json("PUT", path, {}, body)
        if replaced is None:
            raise Conflict(path)
        return replaced

    def merge(self, path: str, body: Object) -> Object | None:
        """Merge `body` into an object (RFC 7386); returns the object, or None if it does not exist.

        Raises:
            Conflict: `body` has a resourceVersion, and the object has another.
        """
        return self._json("PATCH", path, {}, body)

    def would_apply(
        self, bodies: Mapping[str, Object], *, manager: str, force: bool
    ) -> list[tuple[Object | None, str]]:
        """What a server-side apply would make of each object, all asked at the same time. Nothing is written.

        Args:
            bodies: The objects by their paths.
            manager: The field manager.
            force: Whether fields that others manage would be taken over.

        Returns:
            For each the object; or None, and why Kubernetes would refuse it.
        """
        query = {"dryRun": "All", "fieldManager": manager, "fieldValidation": "Strict", "force": str(force).lower()}
        requests = [self._request("PATCH", path, query, body, apply=True) for path, body in bodies.items()]
        answers = [(status, json.loads(data)) for status, data in self._send(requests)]
        return [(answer, "") if status < 300 else (None, str(answer.get("message"))) for status, answer in answers]

    def delete(self, path: str, *, uid: str = "", version: str = "") -> None:
        """Delete an object, with `uid` or `version` only if it still has those. A missing object is no error.

        Raises:
            Conflict: The object has another uid or version.
        """
        preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value}
        # The default of most kinds, but a Job would leave its pods and Secrets behind.
        options = {"propagationPolicy": "Background", "preconditions": preconditions}
        self._json("DELETE", path, {}, {"apiVersion": "v1", "kind": "DeleteOptions", **options})

    def watch(self, path: str, version: str, *, metadata: bool, seconds: int, **query: str | int) -> Iterator[Object]:
        """Yield the events after `version`, until the server ends the watch after `seconds`.

        The first event, of type CONNECTED, is this client's own; the others are Kubernetes'.

        Raises:
            Gone: `version` is no longer stored.
        """
        query = {
            **query,
            "watch": 1,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": seconds,
        }
        accept = METADATA if metadata else JSON
        try:
            # The API server sends a bookmark about once a minute; after a longer silence the connection is dead.
            with self._connections.stream(self._request("GET", path, query, accept=accept), (1.0, 90.0)) as response:
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

    @contextmanager
    def text_stream(self, path: str, **query: str | int) -> Iterator[Iterator[bytes] | None]:
        """A plain text response as it arrives, such as a followed log; None if there is nothing to show (400 or 404).

        It also ends after a minute of silence.
        """
        try:
            with self._connections.stream(self._request("GET", path, query), (1.0, 60.0)) as response:
                if response.status in (400, 404):
                    yield None
                    return
                if response.status != 200:
                    self._checked(response.status, response.read(), path)
                    raise ClusterUnavailable
                yield _until_silent(response)
        except (HTTPException, OSError) as error:
            raise ClusterUnavailable from error

    @contextmanager
    def attached(self, path: str, seconds: float, **query: str | int) -> Iterator[Attachment]:
        """A connection to a container's standard input, and to what it writes from then on.

        Raises TimeoutError if it takes longer than `seconds`, and another OSError if the container cannot be reached.
        """
        request = self._request("GET", path, query)
        with ExitStack() as ending:
            try:
                connection, base = ending.enter_context(self._connections.connected((TIMEOUT[0], seconds)))
            except (HTTPException, OSError) as error:
                raise ClusterUnavailable from error
            headers = {name: text for name, text in request.headers.items() if name != "Accept"}
            try:
                attachment = ending.enter_context(attached(connection, base + request.target, headers, seconds))
            except HandshakeRefused as error:
                if error.status in (401, 403, 429):
                    self._checked(error.status, error.body, path)
                raise
            yield attachment

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
        [(status, data)] = self._send([self._request(method, path, query, body, accept)])
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
        *,
        apply: bool = False,
    ) -> Request:
        headers = {"Accept": accept, "User-Agent": "gameserver-api"}
        content = None if body is None else (as_yaml(body) if apply else json.dumps(body)).encode()
        if apply:
            headers["Content-Type"] = "application/apply-patch+yaml"
        elif body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else JSON
        if token := self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization"):
            headers["Authorization"] = token
        target = path + (f"?{urlencode(query)}" if query else "")
        return Request(method, target, headers, content)

    def _send(self, requests: Sequence[Request]) -> list[tuple[int, bytes]]:
        began = time.monotonic()
        try:
            try:
                return self._connections.send_all(requests, TIMEOUT)
            except (HTTPException, OSError):
                # An API server that was restarted has closed the idle connections. Reads may be sent again on new
                # ones; writes may not, because the first may have been carried out.
                if any(request.method != "GET" for request in requests) or time.monotonic() - began > 0.5:
                    raise
            return self._connections.send_all(requests, TIMEOUT)
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
            # The chart should have granted these rights. The log tells the operator; the client can only retry later.
            log.error("Kubernetes denies the API's service account access to %s: %s", path, message)
            raise ClusterUnavailable("Kubernetes denies the API access. The operator has to fix its rights.")
        if status == 429 or status >= 500:
            log.warning("Kubernetes answered %d at %s: %s", status, path, message)
            raise ClusterUnavailable
        log.error("Kubernetes answered %d at %s: %s", status, path, message)
        raise OperationFailed("Kubernetes rejected a request of the API. The API's log has the details.")


def _until_silent(response: HTTPResponse) -> Iterator[bytes]:
    """What the response sends, until it ends or the read times out."""
    with suppress(TimeoutError):
        while chunk := response.read1(65536):
            yield chunk


def _tls(configuration: client.Configuration) -> ssl.SSLContext:
    """The TLS settings that the official client would use with its configuration."""
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context
