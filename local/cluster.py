"""The local Kubernetes: nodes, kubeadm, what storage needs, DNS."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from local import binaries, images, nodes, paths, steps

_MANIFESTS = paths.ROOT / "local" / "manifests"


def wanted_nodes() -> list[nodes.Node]:
    """The nodes to have: `NODES` of the environment, 2 unless told; more where the cluster has more.

    A node that has joined once holds disks, and each DaemonSet waits for its pod there.
    """
    text = os.environ.get("NODES") or "2"
    if text not in ("1", "2", "3"):
        raise steps.StepFailed(f"NODES must be 1, 2 or 3, not {text!r}")
    possible = [nodes.Node(number) for number in range(1, nodes.MOST + 1)]
    return [node for node in possible if node.number <= int(text) or (node.folder / "joined").exists()]


def up(built: Path) -> list[nodes.Node]:
    """Bring the nodes and the control plane up, or what is missing of them; returns the nodes.

    Args:
        built: the folder of the compiled binaries.
    """
    nodes.refuse_another_checkouts()
    default_class()
    wanted = wanted_nodes()
    system = images.every_node(built)
    control_plane = images.control_plane(built)
    first, others = wanted[0], wanted[1:]
    if not set(nodes.running()) >= {node.number for node in wanted}:
        with steps.step(f"starting {len(wanted)} node{'s' if len(wanted) > 1 else ''}"):
            if not nodes.running():
                # What a dead run of any checkout left: bridge, cgroups, record.
                nodes.stop()
            for node in wanted:
                if not (node.folder / "joined").exists():
                    _wipe(node)
                nodes.start(node, built)
            nodes.route(wanted)
    for node in wanted:
        nodes.ensure_pool(node)
    with steps.step("importing the system's images into the nodes"):
        load({node: [*(control_plane if node == first else []), *system] for node in wanted})
    _control_plane(first, built)
    for node in others:
        _join(node, first, built)
    with steps.step("waiting for the nodes to be ready"):
        kubectl(["wait", "--for=condition=Ready", "--timeout=120s", *(f"node/{n.name}" for n in wanted)])
    return wanted


def load(images_by_node: Mapping[nodes.Node, Sequence[images.Image]]) -> None:
    """Import the images of each node into it, into all nodes at once."""
    jobs = steps.Jobs()
    for node, node_images in images_by_node.items():
        jobs.start(partial(images.load, node, node_images))
    jobs.finish()


def default_class() -> str:
    """The StorageClass that claims get that name none: `gameserver-disks`, or `local-path` for `DISKS=local-path`."""
    text = os.environ.get("DISKS") or "gameserver-disks"
    if text not in ("gameserver-disks", "local-path"):
        raise steps.StepFailed(f"DISKS must be gameserver-disks or local-path, not {text!r}")
    return text


def addons(cluster_nodes: Sequence[nodes.Node]) -> None:
    """Install storage and DNS, which the nodes do not need to start.

    The disk driver itself is `deploy.disks`; here is what it needs of Kubernetes.
    """
    is_default = str(default_class() == "local-path").lower()
    system = tuple(images.addons())
    with steps.step("importing the images of storage and DNS into the nodes"):
        load(dict.fromkeys(cluster_nodes, system))
    with steps.step("waiting for storage and DNS"):
        for kind in binaries.snapshot_kinds():
            kubectl(["apply", "-f", kind])
        for manifest in ("storage.yaml", "coredns.yaml", "snapshots.yaml"):
            text = (_MANIFESTS / manifest).read_text().replace("LOCAL_PATH_IS_DEFAULT", is_default)
            text = text.replace("SNAPSHOT_CONTROLLER_VERSION", binaries.csi_version("snapshot-controller"))
            kubectl(["apply", "-f", "-"], stdin=text)
        for namespace, name in (
            ("local-path-storage", "local-path-provisioner"),
            ("kube-system", "coredns"),
            ("kube-system", "snapshot-controller"),
        ):
            kubectl(["-n", namespace, "rollout", "status", "--timeout=120s", f"deployment/{name}"])


def metrics(cluster_nodes: Sequence[nodes.Node]) -> None:
    """Install metrics-server. Until it has measured, the autoscaler leaves the replicas as they are."""
    system = (images.metrics_server(),)
    with steps.step("importing the image of metrics-server into the nodes"):
        load(dict.fromkeys(cluster_nodes, system))
    kubectl(["apply", "-f", _MANIFESTS / "metrics-server.yaml"])


def kubectl(arguments: Sequence[object], stdin: str | None = None) -> str:
    """What `kubectl` prints, talking to the local cluster as its administrator."""
    return steps.output([paths.BIN / "kubectl", f"--kubeconfig={paths.KUBECONFIG}", *arguments], stdin=stdin)


def _wipe(node: nodes.Node) -> None:
    """Forget a node on which kubeadm never came to its end; its images stay."""
    for folder in ("etc/kubernetes", "var/lib/etcd", "var/lib/kubelet"):
        shutil.rmtree(node.folder / folder, ignore_errors=True)


def _control_plane(node: nodes.Node, built: Path) -> None:
    joined = node.folder / "joined"
    if not joined.exists():
        with steps.step("starting the control plane (kubeadm init)"):
            _kubeadm(node, built, "init", _filled("kubeadm-init.yaml", node))
            joined.touch()
    # admin.conf is kubeadm's; the copy is what people and scripts use.
    shutil.copy2(node.folder / "etc/kubernetes/admin.conf", paths.KUBECONFIG)
    paths.KUBECONFIG.chmod(0o600)
    with steps.step("waiting for the API server"):
        deadline = time.monotonic() + 120
        while True:
            try:
                kubectl(["get", "--raw", "/readyz", "--request-timeout=5s"])
                return
            except steps.StepFailed as error:
                if time.monotonic() > deadline:
                    log = node.folder / "kubelet.log"
                    raise steps.StepFailed(f"{error}\nthe kubelet's log is {log}:\n{steps.tail(log)}") from error
                time.sleep(0.5)


#: What a join that was killed has left in a node. A kubelet that it has started registers its node once only, so it has
#: to end; node_init.py starts the next one when there is a config.yaml again.
_FORGET = """
rm -rf /etc/kubernetes/*kubelet.conf /var/lib/kubelet/config.yaml /var/lib/kubelet/pki
pkill -x kubelet
while pgrep -x kubelet >/dev/null; do sleep 0.1; done
"""


def _join(node: nodes.Node, first: nodes.Node, built: Path) -> None:
    joined = node.folder / "joined"
    if joined.exists():
        return
    with steps.step(f"joining {node.name} (kubeadm join)"):
        # A node object of a join that was killed would make kubeadm refuse this one.
        kubectl(["delete", "node", node.name, "--ignore-not-found"])
        steps.output(nodes.enter(node, ["sh", "-c", _FORGET]))
        command = [built / "kubeadm", "token", "create", "--print-join-command", "--ttl=10m"]
        words = steps.output(nodes.enter(first, command)).split()
        token = words[words.index("--token") + 1]
        ca_hash = words[words.index("--discovery-token-ca-cert-hash") + 1]
        config = _filled("kubeadm-join.yaml", node)
        config = config.replace("SERVER", first.address)
        config = config.replace("TOKEN", token).replace("CA_HASH", ca_hash)
        _kubeadm(node, built, "join", config)
        joined.touch()


def _filled(manifest: str, node: nodes.Node) -> str:
    text = (_MANIFESTS / manifest).read_text()
    text = text.replace("ADDRESS", node.address).replace("NAME", node.name)
    return text.replace("VERSION", binaries.kubernetes_version())


def _kubeadm(node: nodes.Node, built: Path, verb: str, config: str) -> None:
    file = node.folder / f"kubeadm-{verb}.yaml"
    file.touch(mode=0o600)
    file.write_text(config)
    # CoreDNS is local/manifests/coredns.yaml, which needs no image by kubeadm's name for it.
    phases = ["--skip-phases=addon/coredns"] if verb == "init" else []
    command = [
        built / "kubeadm",
        verb,
        f"--config={file}",
        "--ignore-preflight-errors=all",
        *phases,
    ]
    # kubeadm looks for the kubelet on the PATH.
    steps.run(f"kubeadm-{verb}-{node.name}", nodes.enter(node, command, built))


def remove_data() -> None:
    """Remove the cluster's data from the checkout: worlds, etcd, containerd."""
    shutil.rmtree(paths.NODES, ignore_errors=True)
    for file in (paths.KUBECONFIG, paths.TOKEN, paths.ENV):
        file.unlink(missing_ok=True)
