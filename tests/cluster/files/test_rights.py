"""The agents' service account has the rights that it needs, and no others."""

from __future__ import annotations

import pytest

from tests.cluster.files.servers import SERVERS, SFTP, get, kubectl

AGENT = f"system:serviceaccount:{SFTP}:sftp"
# Kubernetes gives these to every authenticated user.
EVERYBODY = {"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"}

EVERYWHERE = {"persistentvolumes": {"list", "watch"}, "nodes": {"get"}}


def rights(namespace: str) -> dict[str, set[str]]:
    """The verbs that the agents have in a namespace, including cluster-wide ones, by resource."""
    lines = kubectl("auth", "can-i", "--list", "--no-headers", f"--as={AGENT}", "-n", namespace).splitlines()
    verbs = {}
    for line in lines:
        resource, _, rest = line.partition(" ")
        if resource and resource.split(".")[0] not in EVERYBODY and not line.startswith(" "):
            verbs[resource] = set(rest[rest.rindex("[") + 1 : rest.rindex("]")].split())
    return verbs


def test_in_the_servers_namespace() -> None:
    """The agents may read claims and Services, and write EndpointSlices and the records of usage."""
    assert rights(SERVERS) == {
        **EVERYWHERE,
        "configmaps": {"create", "patch"},
        "persistentvolumeclaims": {"list", "watch"},
        "services": {"list", "watch"},
        "endpointslices.discovery.k8s.io": {"list", "watch", "create", "patch", "delete"},
    }


def test_in_its_own_namespace() -> None:
    """The agents may read the accounts' Secrets."""
    assert rights(SFTP) == {**EVERYWHERE, "secrets": {"list", "watch"}}


@pytest.mark.parametrize("namespace", ["gameserver-system", "kube-system", "default"])
def test_in_other_namespaces(namespace: str) -> None:
    """The agents may read volumes and nodes, which belong to no namespace, and nothing else."""
    assert rights(namespace) == EVERYWHERE


def test_the_hook_leaves_no_rights() -> None:
    """The service account of the install hook, which may write the host key, is gone after the install."""
    for kind in ("serviceaccounts", "roles", "rolebindings", "jobs"):
        names = [item["metadata"]["name"] for item in get(kind, "-n", SFTP)["items"]]
        assert not [name for name in names if name.endswith("-host-key")]


def test_the_processes_have_no_more_than_the_charts_capabilities() -> None:
    """The bounding set (CapBnd) of every process in the SFTP pods has exactly the chart's capabilities."""
    capabilities = sum(1 << bit for bit in (5, 6, 7, 18, 21, 29))  # KILL SETGID SETUID SYS_CHROOT SYS_ADMIN AUDIT_WRITE
    pods = get("pods", "-n", SFTP, "-l", "app.kubernetes.io/name=sftp-daemonset")["items"]
    for pod in pods:
        output = kubectl(
            *("exec", "-n", SFTP, pod["metadata"]["name"], "--", "sh", "-c"),
            # A process may end meanwhile.
            "cat /proc/[0-9]*/status 2>/dev/null | grep ^CapBnd",
        )
        assert {int(line.split()[1], 16) for line in output.splitlines()} == {capabilities}
