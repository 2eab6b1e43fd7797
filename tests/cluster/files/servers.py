"""Servers as the SFTP agents see them: a claim with its disk, a Service, an account, and a game that runs.

They are created without the API, so that these tests check the DaemonSet alone.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from tests.cluster import commands
from tests.cluster.pool import folder_of
from tests.support.waiting import until

SERVERS = "gameservers"
SFTP = "gameserver-sftp"
IMAGE = "localhost/debian:bookworm-slim"
# The output of `openssl passwd -6`.
PASSWORD = "correct-horse"
PASSWORD_HASH = "$6$saltsaltsalt$DwOpBtQmY9DfqAt5fItSHEOMhiTt98Jo3pY.1UoK4FbqzpKXekUehTMGg5ZBsPI2GQWABrnNp3WUQTfNhJLvu."
OTHER_PASSWORD = "battery-staple"
OTHER_HASH = "$6$saltsaltsalt$Dq1ddwhzporGzhjhBPOwKcyUGML9e98fi7fQZsOWapKmMTYcNc8VAGD1HaXs8RFdZ7XjlB2G5cEAvk/cJijk8."

# sftp uses the first value of an option, so these go before the others and before the BatchMode that `sftp -b` sets.
PASSWORD_ONLY = [
    *("-o", "BatchMode=no"),
    *("-o", "PasswordAuthentication=yes"),
    *("-o", "PubkeyAuthentication=no"),
    *("-o", "NumberOfPasswordPrompts=1"),
]


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """Run kubectl and return what it prints. Raises AssertionError with its stderr."""
    return commands.run("kubectl", *arguments, stdin=stdin, timeout=180)


def get(*arguments: str) -> Any:
    """The output of `kubectl get … -o json`."""
    return json.loads(kubectl("get", *arguments, "-o", "json"))


def apply(*objects: dict[str, Any]) -> None:
    """Create or change these objects with `kubectl apply`."""
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def eventually(check: Callable[[], Any], seconds: float, what: str) -> float:
    """Wait until `check()` is true, also through errors of the network and of SSH. Returns how many seconds it took."""
    return until(check, seconds, f"not within {seconds} s: {what}", not_yet=(OSError, asyncssh.Error))


def sftp_pod(node: str) -> str:
    """The name of a node's SFTP pod."""
    return commands.pod_on(node, SFTP, "sftp-daemonset")


def in_sftp_pod(node: str, script: str) -> str:
    """Run a script in a node's SFTP pod and return what it prints."""
    return kubectl("exec", "-n", SFTP, sftp_pod(node), "--", "sh", "-c", script)


def agent(node: str) -> str:
    """The pid of a node's agent in its pod; "" if no agent runs."""
    script = (
        "for process in /proc/[0-9]*; do"
        " case \"$(tr '\\0' ' ' < $process/cmdline)\" in 'python3 -m disk_agent '*) echo ${process#/proc/};; esac; done"
    )
    return in_sftp_pod(node, script).strip()


@contextlib.contextmanager
def reachable(*servers: Server) -> Iterator[None]:
    """Create the servers, and wait until their accounts work. They are deleted afterwards."""
    with ThreadPoolExecutor(len(servers)) as at_once:
        list(at_once.map(Server.delete, servers))
        try:
            list(at_once.map(Server.create, servers))
            for server in servers:
                eventually(server.reachable, 20, f"{server.user} has access")
            yield
        finally:
            list(at_once.map(Server.delete, servers))


@dataclass
class Server:
    """One server: its objects, and clients for its files."""

    number: int
    node: str
    key: asyncssh.SSHKey
    key_file: Path
    addresses: tuple[str, ...]
    namespace: str = SERVERS
    accounts: str = SFTP
    # The class of its disk; "" is the cluster's default.
    storage_class: str = ""

    @classmethod
    def with_new_key(cls, number: int, node: str, folder: Path, addresses: tuple[str, ...], **fields: str) -> Server:
        """A server with a key of its own, whose file is written to `folder`."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        key_file = folder / str(number)
        key.write_private_key(str(key_file))
        key_file.chmod(0o600)
        return cls(number, node, key, key_file, addresses, **fields)

    @property
    def user(self) -> str:
        return f"server-{self.number}"

    @property
    def labels(self) -> dict[str, str]:
        return {"gameserver/id": str(self.number)}

    @property
    def public_key(self) -> str:
        return self.key.export_public_key().decode().strip()

    @functools.cached_property
    def port(self) -> int:
        """The node port. `expose` clears the cached value."""
        return int(get("service", f"{self.user}-sftp", "-n", self.namespace)["spec"]["ports"][0]["nodePort"])

    @property
    def folder(self) -> str:
        """The disk's folder on its node."""
        return folder_of(get("pv", self.volume))

    @property
    def volume(self) -> str:
        """The name of the volume that the claim is bound to."""
        return str(get("pvc", self.user, "-n", self.namespace)["spec"]["volumeName"])

    def create(self) -> None:
        """Create the disk, the Service, the account and the game, and wait until the game runs."""
        apply(self._claim(), self._service(), self._pod())
        self.set_account(keys=[self.public_key], password_hash=PASSWORD_HASH)
        self.wait_for_game()

    def wait_for_game(self) -> None:
        """Wait until the game's pod is ready."""
        kubectl("wait", "-n", SERVERS, f"pod/{self.user}-0", "--for=condition=Ready", "--timeout=120s")

    def start(self) -> None:
        """Start the game, and wait until it runs."""
        apply(self._pod())
        self.wait_for_game()

    def stop(self) -> None:
        """Stop the game, and wait until it has ended."""
        kubectl("delete", "-n", SERVERS, f"pod/{self.user}-0", "--ignore-not-found", "--wait")

    def expose(self) -> None:
        """Create the Service."""
        apply(self._service())
        self.__dict__.pop("port", None)

    def move(self, node: str) -> None:
        """Give the server an empty disk on another node, under the same claim's name."""
        self.stop()
        kubectl("delete", "-n", SERVERS, f"pvc/{self.user}", "--wait")
        self.node = node
        apply(self._claim(), self._pod())
        self.wait_for_game()

    def delete(self) -> None:
        """Delete the server with its disk and account."""
        kubectl("delete", "secret", self.user, "-n", SFTP, "--ignore-not-found")
        self.stop()
        kubectl(
            "delete", "-n", SERVERS, f"service/{self.user}-sftp", f"pvc/{self.user}", "--ignore-not-found", "--wait"
        )

    def set_account(self, keys: list[str], password_hash: str | None) -> None:
        """Write the account's Secret."""
        apply(self.account(keys, password_hash))

    def account(self, keys: list[str], password_hash: str | None = None) -> dict[str, Any]:
        """The Secret as the API writes it."""
        data = {"authorized-keys": "\n".join(keys)}
        if password_hash:
            data["password-hash"] = password_hash
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self.user,
                "namespace": self.accounts,
                "labels": {**self.labels, "app.kubernetes.io/component": "sftp-account"},
            },
            "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
        }

    def static(self, folder: str) -> list[dict[str, Any]]:
        """A disk in an existing folder of the node, and the Service: a server whose game never ran."""
        volume: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{self.namespace}-{self.user}", "labels": self.labels},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "1Gi"},
                "storageClassName": "",
                "local": {"path": folder},
                "claimRef": {"namespace": self.namespace, "name": self.user},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.node]}
                                ]
                            }
                        ]
                    }
                },
            },
        }
        claim = self._claim()
        claim["spec"] |= {"storageClassName": "", "volumeName": volume["metadata"]["name"]}
        return [volume, claim, self._service()]

    def game(self, script: str) -> str:
        """Run a script in the game's container, as the game's user, in the disk's folder."""
        return kubectl("exec", "-n", SERVERS, f"{self.user}-0", "--", "sh", "-c", f"cd /data; {script}")

    def openssh(self, *batch: str, address: str | None = None, check: bool = True, password: str | None = None) -> str:
        """Run a batch with OpenSSH's sftp, with the key or a password, and return all that it prints."""
        options, environment = ["-b", "-", *self._options()], None
        if password is not None:
            options = [*PASSWORD_ONLY, *options]
            # Without a terminal, OpenSSH asks this program for the password.
            askpass = self.key_file.parent / "askpass"
            askpass.write_text('#!/bin/sh\nprintf "%s\\n" "$PASSWORD"\n')
            askpass.chmod(0o700)
            environment = {
                **os.environ,
                "SSH_ASKPASS": str(askpass),
                "SSH_ASKPASS_REQUIRE": "force",
                "PASSWORD": password,
            }
        done = subprocess.run(
            ("sftp", *options, "-P", str(self.port), f"{self.user}@{address or self.addresses[0]}"),
            input="\n".join(batch) + "\n",
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=60,
            env=environment,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    @contextlib.contextmanager
    def openssh_session(self) -> Iterator[subprocess.Popen[bytes]]:
        """OpenSSH's sftp, logged in and waiting for the next command."""
        words = ("sftp", "-b", "-", *self._options(), "-P", str(self.port), f"{self.user}@{self.addresses[0]}")
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as sftp:
            assert sftp.stdin
            assert sftp.stdout
            try:
                sftp.stdin.write(b"pwd\n")
                sftp.stdin.flush()
                while b"/files" not in (line := sftp.stdout.readline()):
                    assert line, "no login"
                yield sftp
            finally:
                sftp.kill()

    def connect(self, address: str | None = None, **options: Any) -> Any:
        """An asyncssh connection, with the account's key by default."""
        chosen: dict[str, Any] = {
            "username": self.user,
            "client_keys": [self.key],
            "password": None,
            "login_timeout": 20,
            **options,
        }
        return asyncssh.connect(
            address or self.addresses[0],
            self.port,
            known_hosts=published_host_key(),
            config=None,
            agent_path=None,
            **chosen,
        )

    def reachable(self) -> bool:
        """Whether a login works."""
        done = subprocess.run(
            ("sftp", "-b", "/dev/null", *self._options(), "-P", str(self.port), f"{self.user}@{self.addresses[0]}"),
            capture_output=True,
            check=False,
            timeout=30,
        )
        return done.returncode == 0

    def ssh(self, *options: str, command: str = "") -> subprocess.Popen[str]:
        """OpenSSH's ssh, for everything that is not SFTP."""
        words = ("-v", *options, *self._options(), "-p", str(self.port), f"{self.user}@{self.addresses[0]}", command)
        return subprocess.Popen(
            [word for word in ("ssh", *words) if word],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _options(self) -> list[str]:
        options = {
            "IdentityFile": str(self.key_file),
            "IdentitiesOnly": "yes",
            "PasswordAuthentication": "no",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "ConnectTimeout": "5",
        }
        return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]

    def _claim(self) -> dict[str, Any]:
        chosen = {"storageClassName": self.storage_class} if self.storage_class else {}
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": self.user, "namespace": self.namespace, "labels": self.labels},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **chosen},
        }

    def _service(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"{self.user}-sftp", "namespace": self.namespace, "labels": self.labels},
            "spec": {"type": "NodePort", "ports": [{"name": "sftp", "port": 22, "targetPort": 2022}]},
        }

    def _pod(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{self.user}-0", "namespace": self.namespace, "labels": self.labels},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": self.node},
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 1,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "runAsGroup": 1000,
                    "fsGroup": 1000,
                    "fsGroupChangePolicy": "OnRootMismatch",
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "game",
                        "image": IMAGE,
                        "imagePullPolicy": "Never",
                        "command": ["sleep", "infinity"],
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": self.user}}],
            },
        }


@functools.cache
def published_host_key() -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
    """The host keys in the ConfigMap, as asyncssh's trusted ones. It refuses a host with another key."""
    data = get("configmap", "sftp-host-key", "-n", SFTP)["data"]
    return [asyncssh.import_public_key(line) for line in data["public-keys"].splitlines()], [], []


def banner(address: str, port: int) -> bytes:
    """The first bytes that a server sends."""
    with socket.create_connection((address, port), timeout=3) as connection:
        return connection.recv(100)
