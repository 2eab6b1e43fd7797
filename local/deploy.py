"""The product in the cluster: the API by its chart, and server 1 made through that API."""

import base64
import hashlib
import json
import os
import secrets
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from mcstatus import JavaServer

from local import binaries, cluster, images, paths, steps

NAMESPACE = "gameserver-system"
SFTP_NAMESPACE = "gameserver-sftp"
DISKS_NAMESPACE = "gameserver-disks"
STORE_NAMESPACE = "gameserver-store"
NODE_PORT = 30080
_MANIFESTS = paths.ROOT / "local" / "manifests"
#: The pods of file access and of the disk driver mount folders of the node, which no stricter level admits.
_PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
#: The namespaces of the Jobs of backups, which the chart of the API makes, and the Secrets that they mount there.
_JOBS_NAMESPACES = ("gameservers", "gameservers-backups")
_STORE_SECRET, _RECOVERY_SECRET = "backup-store", "recovery-key"
#: The image of each game that is built in.
_GAME_IMAGES = {"minecraft": "minecraft", "luanti": "minetest", "teeworlds": "teeworlds"}


def token() -> str:
    """The local cluster's API token, made at the first call and kept in `.local/token`."""
    # An empty file is what a kill between its making and its writing leaves.
    if not paths.TOKEN.exists() or not paths.TOKEN.read_text():
        descriptor = os.open(paths.TOKEN, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
    return paths.TOKEN.read_text()


def api(kubeconfig: Path, built: dict[str, images.Image]) -> None:
    """Install or upgrade the API with the images `built`, and wait until it is rolled out."""
    _kubectl(kubeconfig, ["apply", "-f", "-"], _namespace(NAMESPACE))
    record = {"name": "local", "scopes": ["read", "operate", "admin"], "customer": None}
    record["sha256"] = hashlib.sha256(token().encode()).hexdigest()
    tokens = {"tokens.json": json.dumps({"tokens": [record]})}
    _kubectl(kubeconfig, ["apply", "-f", "-"], _secret(NAMESPACE, "api-tokens-local", tokens))
    values = yaml.safe_load((_MANIFESTS / "api-values.yaml").read_text())
    values["image"] = _image(built["gameserver-api"])
    for game, image in _GAME_IMAGES.items():
        values["serverValues"]["games"].setdefault(game, {})["image"] = _image(built[image])
    values["backups"] = {
        "image": {key: text for key, text in _image(built["gameserver-backup"]).items() if key != "pullPolicy"},
        "store": {
            "kind": "s3",
            "existingSecret": _STORE_SECRET,
            "s3": {"endpoint": f"http://store.{STORE_NAMESPACE}.svc.cluster.local:7070", "bucket": "worlds"},
        },
        "recoveryKey": {"existingSecret": _RECOVERY_SECRET},
    }
    _install(kubeconfig, "api", "api", NAMESPACE, values)
    secret = _kept(kubeconfig, STORE_NAMESPACE, "root")
    credentials = f"[default]\naws_access_key_id = backups\naws_secret_access_key = {secret}\n"
    for namespace in _JOBS_NAMESPACES:
        _kubectl(kubeconfig, ["apply", "-f", "-"], _secret(namespace, _STORE_SECRET, {"credentials": credentials}))
    _kept(kubeconfig, _JOBS_NAMESPACES[1], _RECOVERY_SECRET)


def store(kubeconfig: Path, built: dict[str, images.Image]) -> None:
    """Install or upgrade the S3 server that keeps the backups, and wait until it serves."""
    _kubectl(kubeconfig, ["apply", "-f", "-"], _namespace(STORE_NAMESPACE, _RESTRICTED))
    _kept(kubeconfig, STORE_NAMESPACE, "root")
    manifest = (_MANIFESTS / "store.yaml").read_text().replace("IMAGE", built["store"].name)
    _kubectl(kubeconfig, ["apply", "-f", "-"], manifest)
    _kubectl(kubeconfig, ["-n", STORE_NAMESPACE, "rollout", "status", "deployment/store", "--timeout=120s"])


def disks(kubeconfig: Path, built: dict[str, images.Image]) -> None:
    """Install or upgrade the disk driver on every node of the local cluster, which has its pools."""
    _kubectl(kubeconfig, ["apply", "-f", "-"], _namespace(DISKS_NAMESPACE, _PRIVILEGED))
    values: dict[str, Any] = {
        "image": _image(built["gameserver-disk-driver"]),
        "storageClass": {"default": cluster.default_class() == "gameserver-disks"},
    }
    for sidecar in ("provisioner", "resizer", "snapshotter"):
        name = f"csi-{sidecar}"
        values[sidecar] = {"image": {"repository": f"localhost/{name}", "tag": binaries.csi_version(name)}}
    _install(kubeconfig, "disks", "disk-driver", DISKS_NAMESPACE, values)


def sftp(kubeconfig: Path, built: dict[str, images.Image]) -> None:
    """Install or upgrade file access on every node; the API's release makes the servers' namespace first."""
    _kubectl(kubeconfig, ["apply", "-f", "-"], _namespace(SFTP_NAMESPACE, _PRIVILEGED))
    _install(kubeconfig, "sftp", "sftp-daemonset", SFTP_NAMESPACE, {"image": _image(built["gameserver-sftp"])})


def _image(image: images.Image) -> dict[str, str]:
    repository, _, tag = image.name.rpartition(":")
    return {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}


def _install(kubeconfig: Path, release: str, chart: str, namespace: str, values: dict[str, Any]) -> None:
    helm = [paths.BIN / "helm", f"--kubeconfig={kubeconfig}"]
    listed = steps.output([*helm, "list", "-n", namespace, "--pending", "--uninstalling", "-o", "json"])
    for pending in json.loads(listed):
        # A `make run` that was killed; nothing of these releases is worth keeping but what their charts keep.
        steps.run(f"helm-{release}", [*helm, "uninstall", pending["name"], "-n", namespace, "--no-hooks"])
    steps.run(
        f"helm-{release}",
        [*helm, "upgrade", "--install", release]
        + [paths.ROOT / "charts" / chart, "-n", namespace, "--values", "-", "--wait", "--timeout=3m"],
        # As JSON: PyYAML leaves a tag like 0484801896698278 without quotes, which helm reads as a number.
        stdin=json.dumps(values, ensure_ascii=False),
    )


def write_env(kubeconfig: Path, node_ip: str) -> str:
    """Write `.local/env`; returns the API's address."""
    url = f"http://{node_ip}:{NODE_PORT}"
    lines = {
        "KUBECONFIG": str(kubeconfig),
        "API_URL": url,
        "API_TOKEN": token(),
        "NODE_IP": node_ip,
    }
    if os.environ.get("CLUSTER") != "current":
        # So that no proxy is asked for the nodes.
        lines |= {name: os.environ[name] for name in ("no_proxy", "NO_PROXY")}
    unfinished = paths.ENV.with_suffix(".new")
    unfinished.touch(mode=0o600)
    unfinished.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in lines.items()))
    unfinished.rename(paths.ENV)
    return url


def call(url: str, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    """One call of the API: its status and its JSON; status 0 where nobody answers."""
    request = urllib.request.Request(
        f"{url}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token()}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            return error.code, json.load(error)
        except json.JSONDecodeError:
            return error.code, {"detail": str(error)}
    except (TimeoutError, OSError) as error:
        return 0, {"detail": str(error)}


def first_server(url: str) -> tuple[str, str]:
    """Server 1, made through the API and answering a Minecraft ping; its game's and its files' address.

    Raises:
        StepFailed: the API refused it, or it did not come to run within 3 minutes.
    """
    with steps.step("creating Minecraft server 1 through the API"):
        deadline = time.monotonic() + 60
        while True:
            status, answer = call(url, "GET", "/api/v1/server/1/")
            if status == 404:
                # A disk that an earlier DELETE kept is taken up again; without one it is ignored.
                body = {"ram_gb": 2, "disk_gb": 10, "disk": "reuse"}
                status, answer = call(url, "POST", "/api/v1/server/1/", body)
            elif status == 200 and answer["wanted"] == "stopped":
                status, answer = call(url, "PATCH", "/api/v1/server/1/start")
            if status in (200, 201):
                break
            if time.monotonic() > deadline:
                raise steps.StepFailed(f"the API answered {status}: {answer.get('detail')}")
            time.sleep(1)
    with steps.step("waiting for server 1 to answer a Minecraft ping"):
        game = _answering(url)
    _, files = call(url, "PATCH", "/api/v1/server/1/port/sftp")
    return game, f"{files.get('host')}:{files.get('port')}"


def _answering(url: str) -> str:
    deadline = time.monotonic() + 180
    said = "nothing yet"
    while time.monotonic() < deadline:
        status, answer = call(url, "PATCH", "/api/v1/server/1/port/primary")
        # It has no host before its disk has a node.
        if status == 200 and answer["host"]:
            address = f"{answer['host']}:{answer['port']}"
            try:
                JavaServer.lookup(address, timeout=2).status()
                return address
            except OSError as error:
                said = str(error)
        time.sleep(0.5)
    _, answer = call(url, "GET", "/api/v1/server/1/")
    raise steps.StepFailed(
        f"server 1 does not answer ({said}); the API says {answer.get('state')}: {answer.get('reason')}"
    )


def _namespace(name: str, labels: dict[str, str] | None = None) -> str:
    metadata = {"name": name, "labels": labels or {}}
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def _secret(namespace: str, name: str, texts: dict[str, str]) -> str:
    metadata = {"name": name, "namespace": namespace}
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": texts})


def _kept(kubeconfig: Path, namespace: str, name: str) -> str:
    """The password in a Secret, which is made with a random one if there is none."""
    found = _kubectl(kubeconfig, ["-n", namespace, "get", "secret", name, "--ignore-not-found", "-o", "json"])
    if found:
        return base64.b64decode(json.loads(found)["data"]["password"]).decode()
    password = secrets.token_urlsafe(32)
    _kubectl(kubeconfig, ["create", "-f", "-"], _secret(namespace, name, {"password": password}))
    return password


def _kubectl(kubeconfig: Path, arguments: list[str], stdin: str = "") -> str:
    """What kubectl prints.

    Raises:
        StepFailed: it failed.
    """
    command = [str(paths.BIN / "kubectl"), f"--kubeconfig={kubeconfig}", *arguments]
    result = subprocess.run(command, input=stdin, text=True, capture_output=True)
    if result.returncode != 0:
        raise steps.StepFailed(f"kubectl {' '.join(arguments)} failed: {result.stderr.strip()}")
    return result.stdout
