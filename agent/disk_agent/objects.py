"""Kubernetes objects, reduced to what the agent needs. Pure.

Each function takes an object as the API server sends it and returns a small record, or None if the agent does not need
the object. Nothing else of the object is kept, so two thousand volumes fit in a few megabytes.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]

# Our own CSI driver, and the topology key that names a disk's node. Its volumes say where the disk is mounted.
DISK_DRIVER = "disk-driver.gameserver"
DISK_NODE = "disk-driver.gameserver/node"
SERVER_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
# crypt(5): yescrypt, scrypt (which the API writes), bcrypt, SHA-512, SHA-256. No characters of passwd(5)'s own syntax.
PASSWORD_HASH = re.compile(r"\$(y|7|2[aby]|6|5)\$[./A-Za-z0-9$=,]{20,250}", re.ASCII)
# A public key without options: customers must not set options such as `environment=`.
PUBLIC_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)"
    r"|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com)[ \t]+([A-Za-z0-9+/]+={0,3})(?:[ \t].*)?",
    re.ASCII,
)


@dataclass(frozen=True)
class Account:
    """How a customer may log in to a server's disk.

    Attributes:
        server: The server's id.
        password_hash: A hash in the format of crypt(5).
        keys: Public keys, each as `type base64`.
        uid: The server's uid, which tells it from earlier servers with the same id; "" if unknown.
    """

    server: str
    password_hash: str | None
    keys: tuple[str, ...]
    uid: str = ""


@dataclass(frozen=True)
class Claim:
    """A server's claim and the name of the volume bound to it; `uid` is the server's, "" if unknown."""

    server: str
    volume: str
    uid: str = ""


@dataclass(frozen=True)
class Volume:
    """A volume in a folder of exactly one node.

    Attributes:
        name: Its name.
        node: The name of its node.
        folder: Its folder on the node.
        claim: The `namespace/name` of the claim bound to it.
        is_mount: Whether the folder is a mount point of our driver. Unless something is mounted there, the folder is
            an empty one of the driver's pool, not the disk.
    """

    name: str
    node: str
    folder: str
    claim: str
    is_mount: bool = False


@dataclass(frozen=True)
class Service:
    """The Service for a server's files: the server exists, and has file access.

    Attributes:
        server: The server's id.
        name: The Service's name.
        uid: The Service's uid.
        suspended: Whether the server is suspended: nobody may use its files.
    """

    server: str
    name: str
    uid: str
    suspended: bool = False


@dataclass(frozen=True)
class Slice:
    """The EndpointSlice that says where a server's SFTP Service leads at present.

    Attributes:
        name: Its name.
        owner: The uid of its Service.
        addresses, node, pod: Where it leads.
        version: Its resourceVersion.
    """

    name: str
    owner: str
    addresses: tuple[str, ...]
    node: str
    pod: str
    version: str


def account(secret: Object) -> Account | None:
    """The account in a Secret whose labels and name are as the API writes them."""
    metadata = secret["metadata"]
    server = _server_of(metadata)
    if server is None or metadata["name"] != f"server-{server}":
        return None
    data = secret.get("data") or {}
    password_hash = _text(data.get("password-hash")).strip()
    lines = _text(data.get("authorized-keys")).splitlines()
    keys = [PUBLIC_KEY.fullmatch(line.strip()) for line in lines]
    return Account(
        server=server,
        password_hash=password_hash if PASSWORD_HASH.fullmatch(password_hash) else None,
        keys=tuple(dict.fromkeys(f"{key[1]} {key[2]}" for key in keys if key)),
        uid=str((metadata.get("annotations") or {}).get("gameserver/uid") or ""),
    )


def claim(claim_object: Object) -> Claim | None:
    """A claim `server-<id>` that is bound and not being deleted."""
    metadata = claim_object["metadata"]
    server = _server_of(metadata)
    volume = claim_object["spec"].get("volumeName")
    if server is None or metadata["name"] != f"server-{server}" or not volume or metadata.get("deletionTimestamp"):
        return None
    if claim_object.get("status", {}).get("phase") != "Bound":
        return None
    return Claim(server, volume, server_uid(metadata))


def volume(volume_object: Object) -> Volume | None:
    """A hostPath or local volume, or a disk of our own driver, that exists on one node only."""
    spec = volume_object["spec"]
    affinity = spec.get("nodeAffinity") or {}
    csi = spec.get("csi") or {}
    is_mount = csi.get("driver") == DISK_DRIVER
    if is_mount:
        folder = (csi.get("volumeAttributes") or {}).get("folder")
        node = _only_node(affinity, DISK_NODE)
    else:
        folder = (spec.get("hostPath") or spec.get("local") or {}).get("path")
        node = _only_node(affinity, "kubernetes.io/hostname", "metadata.name")
    reference = spec.get("claimRef")
    if not folder or not node or not reference:
        return None
    claim_name = f"{reference['namespace']}/{reference['name']}"
    return Volume(volume_object["metadata"]["name"], node, folder, claim_name, is_mount)


def service(service_object: Object) -> Service | None:
    """A Service `server-<id>-sftp` that is not being deleted."""
    metadata = service_object["metadata"]
    server = _server_of(metadata)
    if server is None or metadata["name"] != f"server-{server}-sftp" or metadata.get("deletionTimestamp"):
        return None
    suspended = (metadata.get("annotations") or {}).get("gameserver/suspended") == "true"
    return Service(server, metadata["name"], metadata["uid"], suspended)


def endpoint_slice(slice_object: Object) -> Slice | None:
    """An EndpointSlice that an agent has written, on this node or another."""
    metadata = slice_object["metadata"]
    endpoints = slice_object.get("endpoints") or [{}]
    endpoint = endpoints[0]
    owners = metadata.get("ownerReferences") or [{}]
    return Slice(
        name=metadata["name"],
        owner=owners[0].get("uid", ""),
        addresses=tuple(endpoint.get("addresses") or ()),
        node=endpoint.get("nodeName", ""),
        pod=(endpoint.get("targetRef") or {}).get("name", ""),
        version=metadata["resourceVersion"],
    )


def server_uid(metadata: Object) -> str:
    """The server's uid, from the annotation that the chart writes on its claim and its StatefulSet; "" if unknown."""
    try:
        return str(json.loads((metadata.get("annotations") or {}).get("gameserver/server") or "")["uid"])
    except (KeyError, TypeError, ValueError):
        return ""


def _server_of(metadata: Object) -> str | None:
    """The server's id from its label, if it is valid: it becomes part of a user name and of a folder's name."""
    server = (metadata.get("labels") or {}).get("gameserver/id", "")
    return server if SERVER_ID.fullmatch(server) else None


def _only_node(affinity: Object, *keys: str) -> str | None:
    """The one node that a volume's affinity allows by one of these keys; None if it allows several, or any.

    A volume that several nodes may use is not node-local: nothing says which of them has the files.
    https://kubernetes.io/docs/concepts/storage/persistent-volumes/#node-affinity
    """
    nodes = set()
    for term in (affinity.get("required") or {}).get("nodeSelectorTerms") or ():
        requirements = (term.get("matchExpressions") or []) + (term.get("matchFields") or [])
        names = [
            tuple(requirement.get("values") or ())
            for requirement in requirements
            if requirement["key"] in keys and requirement["operator"] == "In"
        ]
        nodes.add(names[0] if names else ())
    only = nodes.pop() if len(nodes) == 1 else ()
    return only[0] if len(only) == 1 else None


def _text(encoded: str | None) -> str:
    """A Secret's value as text, "" if it is not UTF-8."""
    try:
        return base64.b64decode(encoded or "").decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
