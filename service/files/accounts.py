"""SFTP accounts: one Secret per server, in the namespace of the chart gameserver-sftp.

Rights that this needs, given by that chart:

    in its namespace
        secrets                 get create update delete
        configmaps              get, of sftp-host-key
        daemonsets (apps)       list
    in the whole cluster
        persistentvolumes       get

And given by the API's own chart:

    in the whole cluster
        storageclasses (storage.k8s.io)     get
        csidrivers (storage.k8s.io)         get
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from service.errors import FileAccessNotInstalled, OperationInProgress
from service.kube.client import Conflict, Kube, path
from service.kube.types import Object
from service.servers.names import ID, UID, server_name
from service.servers.volumes import DRIVER, in_folder_of_one_node
from service.settings import Settings

log = logging.getLogger(__name__)

_TRIES = 3
_STORAGE = "/apis/storage.k8s.io/v1"


@dataclass(frozen=True)
class Account:
    """How a customer logs in to a server's files.

    Attributes:
        password_hash: The password's hash in the format of crypt(5), if there is one.
        public_keys: Public keys in OpenSSH's format.
        uid: The server's uid, because ids are used again; None if the server has none.
    """

    password_hash: str | None = None
    public_keys: tuple[str, ...] = ()
    uid: str | None = field(default=None, compare=False)


class SecretAccounts:
    """The accounts, stored as Secrets. Create it after a fork: it has sockets.

    Every method may raise ClusterUnavailable, and FileAccessNotInstalled if the chart gameserver-sftp is not installed.
    """

    def __init__(self, settings: Settings, kube: Kube | None = None) -> None:
        self._namespace = settings.sftp_namespace
        self._kube = kube or AccountsKube(connections=16)

    def host_keys(self) -> list[str]:
        """The fingerprints of sshd's host keys."""
        daemonsets = self._kube.get(
            path("apps/v1", self._namespace, "daemonsets"), labelSelector="app.kubernetes.io/component=sftp", limit=1
        )
        published = self._kube.get(path("v1", self._namespace, "configmaps", "sftp-host-key"))
        if not (daemonsets or {}).get("items") or published is None:
            raise FileAccessNotInstalled()
        return str(published.get("data", {}).get("fingerprints", "")).split()

    def account(self, id: int) -> Account:
        """A server's account; an empty one if it does not exist."""
        return _account(self._kube.get(self._path(id)))

    def change(self, id: int, change: Callable[[Account], Account]) -> Account:
        """Replace a server's account with `change(account)`, and return it.

        Raises:
            OperationInProgress: Others kept changing it at the same time.
        """
        for _ in range(_TRIES):
            secret = self._kube.get(self._path(id))
            current = _account(secret)
            changed = change(current)
            if changed == current:
                return current
            try:
                if secret is None:
                    self._kube.create(path("v1", self._namespace, "secrets"), _secret(id, self._namespace, changed))
                else:
                    # The Secret keeps its resourceVersion, so a concurrent change is not lost.
                    self._kube.replace(self._path(id), {**_with_uid(secret, changed), "data": _data(changed)})
            except Conflict:
                continue
            return changed
        raise OperationInProgress()

    def remove(self, id: int) -> None:
        """Delete a server's account. Idempotent; does nothing without the chart."""
        try:
            self._kube.delete(self._path(id))
        except FileAccessNotInstalled:
            return

    def node_local(self, claim: Object) -> bool:
        """Whether the claim's disk is in a folder of one node, or may still become one because it is not bound yet."""
        name = claim.get("spec", {}).get("volumeName")
        volume = self._kube.get(f"/api/v1/persistentvolumes/{name}") if name else None
        if spec := (volume or {}).get("spec"):
            return in_folder_of_one_node(spec)
        return not self._attached(claim.get("spec", {}).get("storageClassName"))

    def _attached(self, class_name: str | None) -> bool:
        """Whether the storage class certainly makes volumes that are no folder: those of another CSI driver.

        A driver's CSIDriver has the name that its storage classes have as the provisioner:
        https://kubernetes-csi.github.io/docs/csi-driver-object.html
        """
        storage_class = self._kube.get(f"{_STORAGE}/storageclasses/{class_name}") if class_name else None
        provisioner = (storage_class or {}).get("provisioner")
        # A CSI driver's name has no slash, unlike the names of older provisioners. Kubernetes reads an escaped slash as
        # one, and refuses the request.
        if not provisioner or provisioner == DRIVER or "/" in provisioner:
            return False
        return self._kube.get(f"{_STORAGE}/csidrivers/{quote(provisioner)}") is not None

    def _path(self, id: int) -> str:
        return path("v1", self._namespace, "secrets", server_name(id))


class NoFileAccess:
    """Used instead of SecretAccounts if the API is configured without file access."""

    def host_keys(self) -> list[str]:
        raise FileAccessNotInstalled()

    def account(self, id: int) -> Account:
        raise FileAccessNotInstalled()

    def change(self, id: int, change: Callable[[Account], Account]) -> Account:
        raise FileAccessNotInstalled()

    def remove(self, id: int) -> None:
        """There is no account to delete."""

    def node_local(self, claim: Object) -> bool:
        raise FileAccessNotInstalled()


class AccountsKube(Kube):
    """A client for the namespace of the chart gameserver-sftp.

    It reports missing rights as FileAccessNotInstalled: that chart grants them, so this is no outage.
    """

    @staticmethod
    def _checked(status: int, body: bytes, path: str) -> bytes:
        if status == 403:
            log.warning("no right to access %s: the chart gameserver-sftp is not installed for this API", path)
            raise FileAccessNotInstalled()
        return Kube._checked(status, body, path)


def _account(secret: Object | None) -> Account:
    data = (secret or {}).get("data") or {}
    password_hash, keys = (
        base64.b64decode(data.get(name, "")).decode() for name in ("password-hash", "authorized-keys")
    )
    uid = ((secret or {}).get("metadata", {}).get("annotations") or {}).get(UID)
    return Account(password_hash or None, tuple(keys.splitlines()), uid)


def _with_uid(secret: Object, account: Account) -> Object:
    """The Secret with the uid of the account's server."""
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
    return _with_uid(secret, account)
