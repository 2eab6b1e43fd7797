"""SFTP accounts: one Secret per server, in the namespace of the chart sftp-daemonset.

Rights that this needs, all given by that chart:

    in its namespace
        secrets                 get create update delete
        configmaps              get, of sftp-host-key
        daemonsets (apps)       list
    in the whole cluster
        persistentvolumes       get
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from service.errors import FileAccessNotInstalled, OperationInProgress
from service.kube.client import Conflict, Kube, path
from service.kube.types import Object
from service.servers.names import ID, UID, server_name
from service.servers.volumes import only_node
from service.settings import Settings

log = logging.getLogger(__name__)

_TRIES = 3


@dataclass(frozen=True)
class Account:
    """How a customer logs in: crypt(5)'s hash of a password, and public keys as OpenSSH writes them.

    `uid` is that of the server which the account is for, None where that has none: ids are used again.
    """

    password_hash: str | None = None
    public_keys: tuple[str, ...] = ()
    uid: str | None = field(default=None, compare=False)


class SecretAccounts:
    """The accounts as the cluster keeps them. To be made after a fork."""

    def __init__(self, settings: Settings, kube: Kube | None = None) -> None:
        self._namespace = settings.sftp_namespace
        self._kube = kube or _Kube(connections=16)

    def host_keys(self) -> list[str]:
        installed = self._kube.get(
            path("apps/v1", self._namespace, "daemonsets"), labelSelector="app.kubernetes.io/component=sftp", limit=1
        )
        published = self._kube.get(path("v1", self._namespace, "configmaps", "sftp-host-key"))
        if not (installed or {}).get("items") or published is None:
            raise FileAccessNotInstalled()
        return str(published.get("data", {}).get("fingerprints", "")).split()

    def account(self, id: int) -> Account:
        return _account(self._kube.get(self._path(id)))

    def change(self, id: int, change: Callable[[Account], Account]) -> Account:
        for _ in range(_TRIES):
            secret = self._kube.get(self._path(id))
            present = _account(secret)
            wanted = change(present)
            if wanted == present:
                return present
            try:
                if secret is None:
                    self._kube.create(path("v1", self._namespace, "secrets"), _secret(id, self._namespace, wanted))
                else:
                    # The version goes with it, so that of two changes at once neither is lost.
                    self._kube.replace(self._path(id), {**_marked(secret, wanted), "data": _data(wanted)})
            except Conflict:
                continue
            return wanted
        raise OperationInProgress()

    def remove(self, id: int) -> None:
        try:
            self._kube.delete(self._path(id))
        except FileAccessNotInstalled:
            return

    def node_local(self, claim: Object) -> bool:
        name = claim.get("spec", {}).get("volumeName")
        volume = self._kube.get(f"/api/v1/persistentvolumes/{name}") if name else None
        spec = (volume or {}).get("spec")
        return not spec or (("hostPath" in spec or "local" in spec) and only_node(spec) is not None)

    def _path(self, id: int) -> str:
        return path("v1", self._namespace, "secrets", server_name(id))


class NoFileAccess:
    """In place of SecretAccounts, where no file access is installed."""

    def host_keys(self) -> list[str]:
        raise FileAccessNotInstalled()

    def account(self, id: int) -> Account:
        raise FileAccessNotInstalled()

    def change(self, id: int, change: Callable[[Account], Account]) -> Account:
        raise FileAccessNotInstalled()

    def remove(self, id: int) -> None:
        """There is none to take away."""

    def node_local(self, claim: Object) -> bool:
        raise FileAccessNotInstalled()


class _Kube(Kube):
    """Where the chart that gives the rights is not installed, there is no file access: that is no outage."""

    @staticmethod
    def _checked(status: int, body: bytes, path: str) -> bytes:
        if status == 403:
            log.warning("no right to %s: the chart sftp-daemonset has not been installed for this API", path)
            raise FileAccessNotInstalled()
        return Kube._checked(status, body, path)


def _account(secret: Object | None) -> Account:
    data = (secret or {}).get("data") or {}
    password_hash, keys = (
        base64.b64decode(data.get(name, "")).decode() for name in ("password-hash", "authorized-keys")
    )
    uid = ((secret or {}).get("metadata", {}).get("annotations") or {}).get(UID)
    return Account(password_hash or None, tuple(keys.splitlines()), uid)


def _marked(secret: Object, account: Account) -> Object:
    """The Secret, saying which server the account is for."""
    if account.uid is None:
        return secret
    annotations = {**(secret["metadata"].get("annotations") or {}), UID: account.uid}
    return {**secret, "metadata": {**secret["metadata"], "annotations": annotations}}


def _data(account: Account) -> dict[str, str]:
    texts = {
        "password-hash": account.password_hash or "",
        "authorized-keys": "".join(f"{key}\n" for key in account.public_keys),
    }
    return {name: base64.b64encode(text.encode()).decode() for name, text in texts.items() if text}


def _secret(id: int, namespace: str, account: Account) -> Object:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": server_name(id),
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/component": "sftp-account",
                "app.kubernetes.io/part-of": "gameserver-cluster",
                "app.kubernetes.io/managed-by": "gameserver-api",
                ID: str(id),
            },
        },
        "type": "Opaque",
        "data": _data(account),
    }
    return _marked(secret, account)
