"""`python3 -m disk_agent.sshd.hostkey`: creates missing host keys, and publishes the public keys.

The chart runs it once before each install and upgrade, with a service account of its own, so that the agents need no
right to write Secrets. It creates a key only if there is none of that type: existing keys survive upgrades, and an
uninstall too.
"""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disk_agent.kube import ApiError, Kube
from disk_agent.logs import JsonHandler

KEY = "ssh_host_ed25519_key"
# Arguments of `ssh-keygen` for each key, the one that clients should prefer first. Some clients know only RSA or ECDSA.
KEYS = {
    KEY: ("-t", "ed25519"),
    "ssh_host_ecdsa_key": ("-t", "ecdsa", "-b", "256"),
    "ssh_host_rsa_key": ("-t", "rsa", "-b", "3072"),
}

log = logging.getLogger(__name__)


def main() -> None:
    logging.basicConfig(level=logging.INFO, handlers=[JsonHandler()])
    kube = Kube(os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"]))
    publish(kube, os.environ["POD_NAMESPACE"], os.environ["HOST_KEY_SECRET"])


def publish(kube: Kube, namespace: str, secret: str) -> None:
    """Ensure that the Secret has the private keys, and the ConfigMap `sftp-host-key` the public ones.

    Raises:
        ApiError, OSError: A request to Kubernetes failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        keys = _ensure_private_keys(kube, namespace, secret, folder)
        public = {name: _public_key(folder / name, private) for name, private in keys.items()}
        fingerprints = [_fingerprint(folder / f"{name}.pub", line) for name, line in public.items()]
    data = {
        "fingerprints": "".join(f"{line}\n" for line in fingerprints),
        "public-keys": "".join(f"{line}\n" for line in public.values()),
    }
    _put_config_map(kube, namespace, data)
    log.info("host keys published", extra={"fields": {"fingerprints": fingerprints}})


def _ensure_private_keys(kube: Kube, namespace: str, secret: str, folder: Path) -> dict[str, bytes]:
    """The private keys by name, after adding the missing ones to the Secret. Existing keys stay as they are."""
    path = f"/api/v1/namespaces/{namespace}/secrets"
    stored = _get(kube, f"{path}/{secret}")
    data: Mapping[str, str] = (stored or {}).get("data") or {}
    keys = {name: base64.b64decode(data[name]) for name in KEYS if name in data}
    missing = [name for name in KEYS if name not in data]
    if missing and (stored or {}).get("immutable"):
        # The operator's own Secret, made immutable on purpose.
        log.warning("the host key's Secret is immutable", extra={"fields": {"missing": missing}})
    elif missing:
        keys |= {name: _generate(folder / name) for name in missing}
        encoded = {name: base64.b64encode(private).decode() for name, private in keys.items()}
        if stored is None:
            kube.request("POST", path, _secret(secret, encoded))
        else:
            # The body carries the Secret's resourceVersion, so a concurrent write is not lost.
            kube.request("PUT", f"{path}/{secret}", {**stored, "data": {**data, **encoded}})
        log.info("host keys made", extra={"fields": {"keys": missing}})
    return {name: keys[name] for name in KEYS if name in keys}


def _generate(path: Path) -> bytes:
    _ssh_keygen("-q", *KEYS[path.name], "-N", "", "-C", "", "-f", str(path))
    return path.read_bytes()


def _public_key(path: Path, private: bytes) -> str:
    path.touch(mode=0o600)
    path.write_bytes(private)
    return _ssh_keygen("-y", "-f", str(path)).strip()


def _fingerprint(path: Path, public: str) -> str:
    path.write_text(public + "\n")
    # "256 SHA256:… comment (ED25519)"
    return _ssh_keygen("-l", "-E", "sha256", "-f", str(path)).split()[1]


def _put_config_map(kube: Kube, namespace: str, data: dict[str, str]) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "sftp-host-key", "labels": _labels()},
        "data": data,
    }
    stored = _get(kube, f"{path}/sftp-host-key")
    if stored is None:
        kube.request("POST", path, body)
    elif stored.get("data") != data:
        kube.request("PUT", f"{path}/sftp-host-key", body)


def _secret(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": _labels()},
        "type": "Opaque",
        "data": data,
    }


def _labels() -> dict[str, str]:
    return {"app.kubernetes.io/component": "sftp-host-key", "app.kubernetes.io/part-of": "gameserver-cluster"}


def _get(kube: Kube, path: str) -> Any:
    try:
        return kube.request("GET", path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _ssh_keygen(*arguments: str) -> str:
    return subprocess.run(("ssh-keygen", *arguments), check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
