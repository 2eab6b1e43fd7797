"""What kube-score has against the charts, but for what is meant to be so, and why.

`make lint` asks for each ci file. A reason that no file needs any more is a complaint too.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.charts.rendering import CHARTS, CI_FILES, RELEASES, case, chart_of, helm

ALL_OF_ALL = {
    "api/Deployment", "api/Pod", "gameserver/StatefulSet", "gameserver/Pod", "sftp-daemonset/DaemonSet",
    "sftp-daemonset/Job",
}  # fmt: skip
#: check → (why it does not count, in which "chart/Kind"). https://github.com/zegl/kube-score/blob/master/README_CHECKS.md
MEANT: dict[str, tuple[str, set[str]]] = {
    "container-resources": ("a CPU limit throttles; memory is limited everywhere", ALL_OF_ALL),
    "container-ephemeral-storage-request-and-limit": ("by value: games' logs differ", ALL_OF_ALL),
    "container-image-pull-policy": ("no tag is moved, and a node starts pods without the registry too", ALL_OF_ALL),
    "pod-networkpolicy": ("by value: it needs a network plugin that enforces it", ALL_OF_ALL),
    "pod-probes": (
        "no liveness: a game that is busy with its world is not killed for being slow; a test's pod just ends",
        {"gameserver/StatefulSet", "gameserver/Pod"},
    ),
    "pod-probes-identical": (
        "both ask the process, never Kubernetes, with patience of their own: a restart mends no cluster",
        {"api/Deployment"},
    ),
    "container-security-context-user-group-id": (
        "1000 is the owner of the files in itzg's images; sshd changes to its users, which takes root",
        {"gameserver/StatefulSet", "gameserver/Pod", "sftp-daemonset/DaemonSet"},
    ),
    "container-security-context-readonlyrootfilesystem": (
        "by value: itzg's image writes outside the disk; the games built here do not",
        {"gameserver/StatefulSet"},
    ),
    "statefulset-has-servicename": (
        "a headless Service would be one more object a server, for a DNS name that nobody asks for",
        {"gameserver/StatefulSet"},
    ),
    "service-type": ("a node port works without a cloud", {"api/Service", "gameserver/Service"}),
    "deployment-has-host-podantiaffinity": ("topologySpreadConstraints do that", {"api/Deployment"}),
    "deployment-replicas": ("one ci file shows a single replica", {"api/Deployment"}),
}  # fmt: skip
_OK = 10


def findings(program: Path) -> Iterator[str]:
    """Each complaint of the kube-score binary `program` that nobody has answered, and each answer to none."""
    needed: set[tuple[str, str]] = set()
    for file in CI_FILES:
        for kind, check, summary in _scored(program, file):
            where = f"{chart_of(file)}/{kind}"
            if where in MEANT.get(check, ("", set()))[1]:
                needed.add((check, where))
            else:
                yield f"{case(file)}: {kind}: {summary} ({check})"
    for check, (_, places) in MEANT.items():
        for where in sorted(places):
            if (check, where) not in needed:
                yield f"tests/charts/policy.py: {check} no longer has anything against {where}"


def _scored(program: Path, file: Path) -> Iterator[tuple[str, str, str]]:
    """Kind, check and summary of what kube-score finds in the manifests of a ci file."""
    release, namespace = RELEASES[chart_of(file)]
    manifests = helm("template", release, CHARTS / chart_of(file), "--namespace", namespace, "--values", file)
    command = [program, "score", "--output-format", "json", "--kubernetes-version", "v1.31", "-"]
    # It ends with 1 where it finds anything.
    found = subprocess.run(command, input=manifests, stdout=subprocess.PIPE, text=True, check=False).stdout
    for thing in json.loads(found):
        for check in thing["checks"] or []:
            if not check["skipped"] and check["grade"] < _OK:
                for comment in check["comments"] or [{"summary": check["check"]["name"]}]:
                    yield thing["type_meta"]["kind"], check["check"]["id"], comment["summary"]
