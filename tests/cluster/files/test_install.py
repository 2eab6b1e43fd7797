"""The chart in a namespace of its own: the commands of its notes work, and a reinstall keeps the host keys."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.paths import ROOT
from tests.cluster import commands
from tests.cluster.commands import on_node
from tests.cluster.files.servers import SFTP, Server, apply, eventually, get, kubectl

CHART = ROOT / "charts" / "sftp-daemonset"
NAMESPACE, RELEASE = "sftp-install-test", "try"


def helm(*arguments: str) -> str:
    """Run helm in the namespace and return what it prints. Raises AssertionError with its stderr."""
    return commands.run("helm", *arguments, "-n", NAMESPACE)


@pytest.fixture
def namespace() -> Iterator[None]:
    """The namespace of the test's own release."""
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    yield
    subprocess.run(("helm", "uninstall", RELEASE, "-n", NAMESPACE), capture_output=True, check=False)
    kubectl("delete", "namespace", NAMESPACE)


def install() -> tuple[list[str], list[list[str]]]:
    """Install the chart and run the commands in its notes; return the fingerprints, published and of each pod."""
    image = get("daemonset", "sftp", "-n", SFTP)["spec"]["template"]["spec"]["containers"][0]["image"]
    repository, _, tag = image.rpartition(":")
    values = f"image.repository={repository},image.tag={tag},serversNamespace=default"
    notes = helm("install", RELEASE, str(CHART), "--set", values, "--wait", "--timeout=120s")
    commands = [line.strip() for line in notes.splitlines() if line.startswith("  kubectl ")]
    outputs = [
        subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout for command in commands
    ]
    assert "successfully rolled out" in outputs[0]
    pods = [
        pod["metadata"]["name"]
        for pod in get("pods", "-n", NAMESPACE)["items"]
        if "job-name" not in pod["metadata"]["labels"]
    ]
    script = "for type in ed25519 ecdsa rsa; do ssh-keygen -l -f /etc/ssh/host-key/ssh_host_${type}_key; done"
    shown = [
        [line.split()[1] for line in kubectl("exec", "-n", NAMESPACE, pod, "--", "sh", "-c", script).splitlines()]
        for pod in pods
        if "deletionTimestamp" not in get("pod", pod, "-n", NAMESPACE)["metadata"]
    ]
    return outputs[1].split(), shown


@pytest.fixture
def early(namespace: None, nodes: list[dict[str, str]], alice: Server) -> Iterator[Server]:
    """A server and its account that exist before any agent runs."""
    folder = "/opt/local-path-provisioner/early"
    server = Server(
        9_100_030, alice.node, alice.key, alice.key_file, alice.addresses, namespace="default", accounts=NAMESPACE
    )
    on_node(server.node, f"mkdir -p {folder} && echo early > {folder}/whose.txt && chown -R 1000:1000 {folder}")
    apply(*server.static(folder), server.account([alice.public_key]))
    yield server
    kubectl("delete", "-n", "default", f"service/{server.user}-sftp", f"pvc/{server.user}", "--wait=false")
    kubectl("delete", f"pv/default-{server.user}", "--wait=false")
    on_node(server.node, f"rm -r {folder}")


@pytest.fixture
def first_key(namespace: None, tmp_path: Path) -> str:
    """The fingerprint of a host key that the first version of the chart left, which made only one."""
    file = tmp_path / "ssh_host_ed25519_key"
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file), check=True)
    kubectl("create", "secret", "generic", "sftp-host-key", "-n", NAMESPACE, f"--from-file={file}")
    return subprocess.run(("ssh-keygen", "-l", "-f", file), check=True, capture_output=True, text=True).stdout.split()[
        1
    ]


def test_the_host_keys_are_those_of_all_nodes_and_survive_a_reinstall(
    early: Server, first_key: str, tmp_path: Path
) -> None:
    """All pods have the same three keys: the existing one is kept, the others are added, and a reinstall keeps all.

    A server that was created before the install is reachable after it.
    """
    first, shown = install()
    eventually(early.reachable, 60, "the early server has access")
    early.openssh(f"get whose.txt {tmp_path}/whose")
    assert (tmp_path / "whose").read_text() == "early\n"
    assert (first[0], len(set(first))) == (first_key, 3)
    assert shown == [first] * len(shown)
    helm("uninstall", RELEASE, "--wait")
    again, shown = install()
    assert again == first
    assert shown == [first] * len(shown)
