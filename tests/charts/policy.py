"""kube-score's complaints about the charts, and the reasons why some of them are accepted.

`make lint` checks each ci file. A reason that no ci file needs any more is a complaint too.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.charts.rendering import CHARTS, CI_FILES, RELEASES, case, chart_of, helm

ALL_WORKLOADS = {
    "api/Deployment", "api/Pod", "api/CronJob", "gameserver/StatefulSet", "gameserver/Pod", "sftp-daemonset/DaemonSet",
    "sftp-daemonset/Job", "disk-driver/DaemonSet",
}  # fmt: skip
#: check → (the reason, the "chart/Kind" pairs in which it is accepted). https://github.com/zegl/kube-score/blob/master/README_CHECKS.md
ACCEPTED: dict[str, tuple[str, set[str]]] = {
    "container-resources": ("a CPU limit throttles; memory is limited everywhere", ALL_WORKLOADS),
    "container-ephemeral-storage-request-and-limit": ("optional: games' logs differ in size", ALL_WORKLOADS),
    "container-image-pull-policy": ("tags do not move; a node can start pods without the registry", ALL_WORKLOADS),
    "pod-networkpolicy": ("optional: it needs a network plugin that enforces it", ALL_WORKLOADS - {"api/CronJob"}),
    "pod-probes": (
        "no liveness probe: a game that is busy with its world must not be killed for being slow; a test pod just ends",
        {"gameserver/StatefulSet", "gameserver/Pod"},
    ),
    "pod-probes-identical": (
        "both check the process, not Kubernetes, with different thresholds: a restart does not fix a cluster",
        {"api/Deployment"},
    ),
    "container-security-context-user-group-id": (
        "in itzg's images, user 1000 owns the files; sshd needs root to switch to its users, and the driver to mount",
        {
            *("gameserver/StatefulSet", "gameserver/Pod", "api/CronJob"),
            *("sftp-daemonset/DaemonSet", "disk-driver/DaemonSet"),
        },
    ),
    "networkpolicy-targets-pod": ("the controller makes the Jobs of backups", {"api/NetworkPolicy"}),
    "container-security-context-privileged": (
        "Kubernetes lets only privileged containers mount something that appears on the node",
        {"disk-driver/DaemonSet"},
    ),
    "container-security-context-readonlyrootfilesystem": (
        "optional: itzg's image writes outside the disk; the games built here do not",
        {"gameserver/StatefulSet"},
    ),
    "statefulset-has-servicename": (
        "a headless Service would be one more object for each server, for a DNS name that nobody uses",
        {"gameserver/StatefulSet"},
    ),
    "service-type": ("a node port works without a cloud", {"api/Service", "gameserver/Service"}),
    "deployment-has-host-podantiaffinity": ("topologySpreadConstraints spread the replicas", {"api/Deployment"}),
    "deployment-replicas": ("one ci file has a single replica", {"api/Deployment"}),
}  # fmt: skip
_OK = 10


def findings(program: Path) -> Iterator[str]:
    """Each complaint of the kube-score binary `program` that is not accepted, and each reason that is not needed."""
    needed: set[tuple[str, str]] = set()
    for file in CI_FILES:
        for kind, check, summary in _scored(program, file):
            workload = f"{chart_of(file)}/{kind}"
            if workload in ACCEPTED.get(check, ("", set()))[1]:
                needed.add((check, workload))
            else:
                yield f"{case(file)}: {kind}: {summary} ({check})"
    for check, (_, workloads) in ACCEPTED.items():
        for workload in sorted(workloads):
            if (check, workload) not in needed:
                yield f"tests/charts/policy.py: {check} no longer complains about {workload}"


def _scored(program: Path, file: Path) -> Iterator[tuple[str, str, str]]:
    """Kind, check and summary of each complaint about the manifests of a ci file."""
    release, namespace = RELEASES[chart_of(file)]
    manifests = helm("template", release, CHARTS / chart_of(file), "--namespace", namespace, "--values", file)
    command: list[str | Path] = [program, "score", "--output-format", "json", "--kubernetes-version", "v1.31", "-"]
    # kube-score exits with 1 if it finds anything.
    output = subprocess.run(command, input=manifests, stdout=subprocess.PIPE, text=True, check=False).stdout
    for scored in json.loads(output):
        for check in scored["checks"] or []:
            if not check["skipped"] and check["grade"] < _OK:
                for comment in check["comments"] or [{"summary": check["check"]["name"]}]:
                    yield scored["type_meta"]["kind"], check["check"]["id"], comment["summary"]
