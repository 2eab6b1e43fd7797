"""Kubernetes objects, cut down to what the agent needs. Pure.

Each function takes an object as the API server sends it and gives a small record, or None for one that is
none of the agent's business. Nothing else of the object is kept: two thousand volumes fit in a few megabytes.
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

SERVER_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
# crypt(5): yescrypt, scrypt (what the API writes), bcrypt, SHA-512, SHA-256. Nothing of a passwd file's own syntax.
PASSWORD_HASH = re.compile(r"\$(y|7|2[aby]|6|5)\$[./A-Za-z0-9$=,]{20,250}", re.ASCII)
# A public key without options: an option such as `environment=` is not the customer's to set.
PUBLIC_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)"
    r"|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com)[ \t]+([A-Za-z0-9+/]+={0,3})(?:[ \t].*)?",
    re.ASCII,
)


@dataclass(frozen=True)
class Account:
    """How a customer may log in: crypt(5)'s password hash, public keys as `type base64`; and to which server's disk.

    `uid` tells that from others that had its id, "" where nobody has said.
    """

    server: str
    password_hash: str | None
    keys: tuple[str, ...]
    uid: str = ""


@dataclass(frozen=True)
class Claim:
    """A server's claim and the volume that it is bound to; `uid` is that of the server, "" where nobody has said."""

    server: str
    volume: str
    uid: str = ""


@dataclass(frozen=True)
class Volume:
    """A volume in a folder of exactly one node; claim is the `namespace/name` bound to it."""

    name: str
    node: str
    folder: str
    claim: str


@dataclass(frozen=True)
class Service:
    """The Service through which a server's files are reached: the server exists, and wants file access."""

    server: str
    name: str
    uid: str


@dataclass(frozen=True)
class Slice:
    """Where a server's SFTP Service leads at present."""

    name: str
    owner: str
    addresses: tuple[str, ...]
    node: str
    pod: str
    version: str


def account(secret: Object) -> Account | None:
    """An account Secret: labels and name as the API writes them."""
    metadata = secret["metadata"]
    server = _server_of(metadata)
    if server is None or metadata["name"] != f"server-{server}":
        return None
    data = secret.get("data") or {}
    password_hash = _text(data.get("password-hash")).strip()
    lines = _text(data.get("authorized-keys")).splitlines()
    found = [PUBLIC_KEY.fullmatch(line.strip()) for line in lines]
    return Account(
        server=server,
        password_hash=password_hash if PASSWORD_HASH.fullmatch(password_hash) else None,
        keys=tuple(dict.fromkeys(f"{key[1]} {key[2]}" for key in found if key)),
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
    return Claim(server, volume, _uid_of(metadata))


def volume(volume_object: Object) -> Volume | None:
    """A hostPath or local volume that one node alone has."""
    spec = volume_object["spec"]
    folder = (spec.get("hostPath") or spec.get("local") or {}).get("path")
    node = _only_node(spec.get("nodeAffinity") or {})
    reference = spec.get("claimRef")
    if not folder or not node or not reference:
        return None
    return Volume(volume_object["metadata"]["name"], node, folder, f"{reference['namespace']}/{reference['name']}")


def service(service_object: Object) -> Service | None:
    """A Service `server-<id>-sftp` that is not being deleted."""
    metadata = service_object["metadata"]
    server = _server_of(metadata)
    if server is None or metadata["name"] != f"server-{server}-sftp" or metadata.get("deletionTimestamp"):
        return None
    return Service(server, metadata["name"], metadata["uid"])


def endpoint_slice(slice_object: Object) -> Slice | None:
    """An EndpointSlice that an agent, on this node or another, has written."""
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


def _uid_of(metadata: Object) -> str:
    """The server's own uid, out of what the chart writes on its claim."""
    try:
        return str(json.loads((metadata.get("annotations") or {}).get("gameserver/server") or "")["uid"])
    except (KeyError, TypeError, ValueError):
        return ""


def _server_of(metadata: Object) -> str | None:
    """The server's id by its label, if it is one: it becomes a user name and a folder's name."""
    server = (metadata.get("labels") or {}).get("gameserver/id", "")
    return server if SERVER_ID.fullmatch(server) else None


def _only_node(affinity: Object) -> str | None:
    """The one node that a volume's affinity allows, else None.

    A volume that several nodes may use is not node-local: which of them has the files cannot be told.
    https://kubernetes.io/docs/concepts/storage/persistent-volumes/#node-affinity
    """
    nodes = set()
    for term in (affinity.get("required") or {}).get("nodeSelectorTerms") or ():
        requirements = (term.get("matchExpressions") or []) + (term.get("matchFields") or [])
        names = [
            tuple(requirement.get("values") or ())
            for requirement in requirements
            if requirement["key"] in ("kubernetes.io/hostname", "metadata.name") and requirement["operator"] == "In"
        ]
        nodes.add(names[0] if names else ())
    only = nodes.pop() if len(nodes) == 1 else ()
    return only[0] if len(only) == 1 else None


def _text(encoded: str | None) -> str:
    """A Secret's value as text; what is no UTF-8 counts as absent."""
    try:
        return base64.b64decode(encoded or "").decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
