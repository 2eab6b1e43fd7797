"""`python3 -m sftp_agent.hostkey`: sees that there is a host key, and publishes its public part.

The chart runs it once before each install and upgrade, with rights of its own, so that no agent may write a
Secret. The key is made only where there is none: it survives upgrades, and an uninstall too.
"""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from sftp_agent.kube import ApiError, Kube
from sftp_agent.logs import JsonHandler

KEY = "ssh_host_ed25519_key"

log = logging.getLogger(__name__)


def main() -> None:
    logging.basicConfig(level=logging.INFO, handlers=[JsonHandler()])
    kube = Kube(os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"]))
    publish(kube, os.environ["POD_NAMESPACE"], os.environ["HOST_KEY_SECRET"])


def publish(kube: Kube, namespace: str, secret: str) -> None:
    """Ensure the key in the Secret and the ConfigMap `sftp-host-key`. Raises ApiError or OSError."""
    with tempfile.TemporaryDirectory() as folder:
        private = Path(folder) / KEY
        found = _get(kube, f"/api/v1/namespaces/{namespace}/secrets/{secret}")
        if found is None:
            _ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(private))
            kube.request("POST", f"/api/v1/namespaces/{namespace}/secrets", _secret(secret, private.read_bytes()))
            log.info("host key made")
        else:
            private.touch(mode=0o600)
            private.write_bytes(base64.b64decode(found["data"][KEY]))
        public = _ssh_keygen("-y", "-f", str(private)).strip()
        (Path(folder) / "public").write_text(public + "\n")
        # "256 SHA256:… comment (ED25519)"
        fingerprint = _ssh_keygen("-l", "-E", "sha256", "-f", f"{folder}/public").split()[1]
    _put_config_map(kube, namespace, {"fingerprints": fingerprint + "\n", "public-keys": public + "\n"})
    log.info("host key published", extra={"fields": {"fingerprint": fingerprint}})


def _put_config_map(kube: Kube, namespace: str, data: dict[str, str]) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "sftp-host-key", "labels": _labels()},
        "data": data,
    }
    found = _get(kube, f"{path}/sftp-host-key")
    if found is None:
        kube.request("POST", path, body)
    elif found.get("data") != data:
        kube.request("PUT", f"{path}/sftp-host-key", body)


def _secret(name: str, private: bytes) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": _labels()},
        "type": "Opaque",
        "data": {KEY: base64.b64encode(private).decode()},
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
