"""Host keys are created once; their public keys are published each time."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest

from disk_agent.kube import ApiError
from disk_agent.sshd.hostkey import KEY, KEYS, publish

# OpenSSH's ssh-keygen.
pytestmark = pytest.mark.tools

SECRET = "/api/v1/namespaces/sftp/secrets"
MAP = "/api/v1/namespaces/sftp/configmaps"


class FakeKube:
    """Objects by path."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.writes: list[str] = []

    def request(self, method: str, path: str, body: Any = None, content_type: str = "") -> Any:
        if method == "GET":
            if path not in self.objects:
                raise ApiError(404, "not found")
            return self.objects[path]
        self.writes.append(f"{method} {path}")
        self.objects[f"{path}/{body['metadata']['name']}" if method == "POST" else path] = body
        return body


def test_a_missing_key_is_created_and_an_existing_one_kept(tmp_path: Path) -> None:
    kube = FakeKube()
    publish(kube, "sftp", "host-key")  # type: ignore[arg-type]
    assert kube.writes == [f"POST {SECRET}", f"POST {MAP}"]
    secret = kube.objects[f"{SECRET}/host-key"]["data"][KEY]
    published = kube.objects[f"{MAP}/sftp-host-key"]["data"]

    private = tmp_path / "key"
    private.touch(0o600)
    private.write_bytes(base64.b64decode(secret))
    public = subprocess.run(("ssh-keygen", "-y", "-f", private), capture_output=True, text=True, check=True).stdout
    assert published["public-keys"].splitlines()[0].split() == public.split()[:2]
    assert published["fingerprints"].startswith("SHA256:")

    # A reinstall: the objects still exist.
    publish(kube, "sftp", "host-key")  # type: ignore[arg-type]
    assert kube.writes == [f"POST {SECRET}", f"POST {MAP}"]

    # The ConfigMap was lost, or its keys replaced.
    kube.objects[f"{MAP}/sftp-host-key"]["data"] = {}
    publish(kube, "sftp", "host-key")  # type: ignore[arg-type]
    assert kube.writes[2:] == [f"PUT {MAP}/sftp-host-key"]
    assert kube.objects[f"{MAP}/sftp-host-key"]["data"] == published


def types(kube: FakeKube) -> list[str]:
    return [line.split()[0] for line in kube.objects[f"{MAP}/sftp-host-key"]["data"]["public-keys"].splitlines()]


ALL = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]


def test_there_is_a_key_of_each_type_that_clients_know() -> None:
    kube = FakeKube()
    publish(kube, "sftp", "host-key")  # type: ignore[arg-type]
    assert types(kube) == ALL
    assert len(kube.objects[f"{MAP}/sftp-host-key"]["data"]["fingerprints"].split()) == 3


def kube_with_one_key(**fields: object) -> tuple[FakeKube, dict[str, str]]:
    """A Secret as the first chart made it, with an Ed25519 key only, and data and annotations of the operator's.

    Returns the cluster and the Secret's data.
    """
    fresh = FakeKube()
    publish(fresh, "sftp", "host-key")  # type: ignore[arg-type]
    data = {KEY: fresh.objects[f"{SECRET}/host-key"]["data"][KEY], "note": "bWluZQ=="}
    kube = FakeKube()
    metadata = {"name": "host-key", "resourceVersion": "5", "annotations": {"theirs": "too"}}
    kube.objects[f"{SECRET}/host-key"] = {"metadata": metadata, "data": data, **fields}
    return kube, data


def test_a_secret_with_one_key_keeps_it_and_gets_the_others() -> None:
    kube, data = kube_with_one_key()
    publish(kube, "sftp", "host-key")  # type: ignore[arg-type]
    assert kube.writes[0] == f"PUT {SECRET}/host-key"
    secret = kube.objects[f"{SECRET}/host-key"]
    assert secret["metadata"] == {"name": "host-key", "resourceVersion": "5", "annotations": {"theirs": "too"}}
    assert {name: secret["data"][name] for name in data} == data
    assert set(secret["data"]) == {*KEYS, "note"}
    assert types(kube) == ALL


def test_an_immutable_secret_is_published_as_it_is() -> None:
    kube, _ = kube_with_one_key(immutable=True)
    publish(kube, "sftp", "host-key")  # type: ignore[arg-type]
    assert kube.writes == [f"POST {MAP}"]
    assert types(kube) == ALL[:1]
