"""The agents' service account has the rights that it needs, and no others."""

from __future__ import annotations

import json

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
    """The agents may read claims, Services, single pods and StatefulSets, and write EndpointSlices and usage."""
    assert rights(SERVERS) == {
        **EVERYWHERE,
        "configmaps": {"create", "patch"},
        "persistentvolumeclaims": {"list", "watch"},
        "pods": {"get"},
        "services": {"list", "watch"},
        "statefulsets.apps": {"get"},
        "endpointslices.discovery.k8s.io": {"list", "watch", "create", "patch", "delete"},
    }


def test_in_its_own_namespace() -> None:
    """The agents may read the accounts' Secrets, and write Secrets, of which the next test has more."""
    assert rights(SFTP) == {**EVERYWHERE, "secrets": {"list", "watch", "create", "patch", "delete"}}


def test_an_agent_writes_no_secrets_but_the_last_lines() -> None:
    """Neither an account, nor the host keys, nor one into which Kubernetes would write a token."""

    def as_agent(*arguments: str, stdin: str | None = None) -> None:
        kubectl("-n", SFTP, f"--as={AGENT}", *arguments, stdin=stdin)

    for arguments in (("create", "secret", "generic", "server-99999"), ("delete", "secret", "sftp-host-key")):
        with pytest.raises(AssertionError, match="an agent may write only"):
            as_agent(*arguments)
    token = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "log-token", "annotations": {"kubernetes.io/service-account.name": "default"}},
        "type": "kubernetes.io/service-account-token",
    }
    with pytest.raises(AssertionError, match="an agent may write only"):
        as_agent("create", "-f", "-", stdin=json.dumps(token))
    as_agent("create", "secret", "generic", "log-test")
    as_agent("delete", "secret", "log-test")


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
