"""The chart gameserver-sftp: least privilege, and every value shows in its place."""

from __future__ import annotations

from typing import Any

import pytest

from tests.charts.rendering import CHARTS, Manifest, Refused, at, render

CHART = "sftp-daemonset"
FULL = CHARTS / CHART / "ci" / "full-values.yaml"


def rules(manifests: dict[str, Manifest], name: str) -> Any:
    return manifests[name]["rules"]


def test_the_agent_may_read_point_ports_and_tell_usage_and_nothing_else() -> None:
    manifests = render(CHART)
    assert rules(manifests, "ClusterRole/gameserver-sftp-sftp") == [
        {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
    ]
    assert rules(manifests, "Role/sftp") == [
        {"apiGroups": [""], "resources": ["persistentvolumeclaims", "services"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch", "create", "patch", "delete"],
        },
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["get"]},
    ]
    assert manifests["Role/sftp"]["metadata"]["namespace"] == "gameservers"
    assert rules(manifests, "Role/sftp-accounts") == [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "patch", "delete"]},
    ]
    assert manifests["Role/sftp-accounts"]["metadata"]["namespace"] == "gameserver-sftp"
    bound = [
        manifest["roleRef"]["name"]
        for manifest in manifests.values()
        if manifest["kind"].endswith("RoleBinding") and manifest["subjects"][0]["name"] == "sftp"
    ]
    assert sorted(bound) == ["gameserver-sftp-sftp", "sftp", "sftp-accounts"]


def test_an_agent_may_write_only_the_secrets_with_last_lines() -> None:
    """The policy applies to exactly the service account that has the right. The cluster's tests try it."""
    manifests = render(CHART, {"fullnameOverride": "files"}, release="other")
    policy = manifests["ValidatingAdmissionPolicy/gameserver-sftp-files"]["spec"]
    (condition,) = policy["matchConditions"]
    account = manifests["DaemonSet/files"]["spec"]["template"]["spec"]["serviceAccountName"]
    assert condition["expression"] == f'request.userInfo.username == "system:serviceaccount:gameserver-sftp:{account}"'
    assert [each["expression"] for each in policy["validations"]] == [
        'request.name.startsWith("log-")',
        'request.operation == "DELETE" || object.type == "Opaque"',
    ]
    constraints = policy["matchConstraints"]
    assert constraints["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "gameserver-sftp"}}
    assert (policy["failurePolicy"], constraints["resourceRules"]) == (
        "Fail",
        [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE", "DELETE"],
                "resources": ["secrets"],
            }
        ],
    )
    binding = manifests["ValidatingAdmissionPolicyBinding/gameserver-sftp-files"]["spec"]
    assert binding == {"policyName": "gameserver-sftp-files", "validationActions": ["Deny"]}


def test_without_last_lines_the_agent_has_neither_the_logs_nor_the_rights() -> None:
    """What is left is what file access needs."""
    manifests = render(CHART, {"lastLines": {"enabled": False}})
    pod = manifests["DaemonSet/sftp"]["spec"]["template"]["spec"]
    assert "pod-logs" not in str(pod)
    assert "POD_LOGS" not in str(pod)
    assert not [name for name in manifests if name.startswith("ValidatingAdmissionPolicy")]
    verbs = {verb for rule in rules(manifests, "Role/sftp-accounts") for verb in rule["verbs"]}
    resources = {resource for rule in rules(manifests, "Role/sftp") for resource in rule["resources"]}
    assert (verbs, resources & {"pods", "statefulsets"}) == ({"list", "watch"}, set())


def test_the_rights_to_make_a_host_key_end_with_the_hook() -> None:
    for name, manifest in render(CHART).items():
        if name.endswith("/sftp-host-key"):
            annotations = manifest["metadata"]["annotations"]
            assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
            assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


def test_the_pod_has_single_capabilities_and_a_read_only_root() -> None:
    (container,) = render(CHART)["DaemonSet/sftp"]["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "appArmorProfile": {"type": "Unconfined"},
        "capabilities": {
            "drop": ["ALL"],
            "add": ["SYS_ADMIN", "SYS_CHROOT", "SETUID", "SETGID", "KILL", "AUDIT_WRITE"],
        },
    }


def test_each_capability_has_its_reason() -> None:
    lines = [line.strip() for line in (CHARTS / CHART / "templates" / "daemonset.yaml").read_text().splitlines()]
    first, last = lines.index("- SYS_ADMIN"), lines.index("- AUDIT_WRITE")
    explained = [lines[i - 1].startswith("#") for i in range(first, last + 1) if lines[i].startswith("- ")]
    # SETUID and SETGID are one step, and share one reason.
    assert explained.count(False) == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "spec.template.spec.containers.0.image",
            "registry.example.com/gameserver-sftp@sha256:" + "0123456789abcdef" * 4,
        ),
        ("spec.template.spec.containers.0.imagePullPolicy", "Always"),
        ("spec.template.spec.imagePullSecrets", [{"name": "registry"}]),
        ("spec.template.spec.containers.0.securityContext.appArmorProfile.localhostProfile", "sftp"),
        (
            "spec.template.spec.containers.0.resources",
            {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "2Gi"}},
        ),
        ("spec.template.spec.terminationGracePeriodSeconds", 10),
        ("spec.template.spec.nodeSelector", {"games": "yes"}),
        ("spec.template.spec.tolerations", [{"key": "games", "operator": "Exists"}]),
        ("spec.template.spec.priorityClassName", "system-node-critical"),
        ("spec/template/metadata/annotations/example.com~note", "files"),
        ("spec/template/metadata/labels/example.com~team", "files"),
        ("spec.updateStrategy.type", "OnDelete"),
    ],
)
def test_values_arrive(path: str, expected: object) -> None:
    assert at(render(CHART, {}, FULL)["DaemonSet/files"], path) == expected


def test_settings_reach_the_agent() -> None:
    (container,) = render(CHART, {}, FULL)["DaemonSet/files"]["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    assert environment == {
        "SERVERS_NAMESPACE": "games",
        "VOLUME_FOLDERS": "/opt/local-path-provisioner:/mnt/disks",
        "GAME_UID": "1001",
        "GAME_GID": "1002",
        "PASSWORD_GUESSES": "5",
        "PASSWORD_GUESS_SECONDS": "2.5",
        "SESSIONS_PER_SERVER": "4",
        "POD_LOGS": "/pod-logs",
    }
    logs = {"name": "pod-logs", "mountPath": "/pod-logs", "readOnly": True}
    assert logs in container["volumeMounts"]
    volumes = render(CHART, {}, FULL)["DaemonSet/files"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "pod-logs", "hostPath": {"path": "/data/pod-logs", "type": "DirectoryOrCreate"}} in volumes
    mounts = {
        mount["mountPath"]: mount for mount in container["volumeMounts"] if mount["mountPath"].startswith("/host")
    }
    for folder in ("/host/opt/local-path-provisioner", "/host/mnt/disks"):
        assert (mounts[folder]["readOnly"], mounts[folder]["mountPropagation"]) == (True, "HostToContainer")


def test_by_default_the_folders_are_those_of_local_path_and_the_disk_drivers_pool() -> None:
    """The pool itself, so that a pool that is mounted after the pod has started is seen; made where a node has none."""
    spec = render(CHART)["DaemonSet/sftp"]["spec"]["template"]["spec"]
    folders = [volume["hostPath"] for volume in spec["volumes"] if "hostPath" in volume]
    assert folders == [
        {"path": "/opt/local-path-provisioner", "type": "DirectoryOrCreate"},
        {"path": "/var/lib/gameserver-disks", "type": "DirectoryOrCreate"},
        {"path": "/var/log/pods", "type": "DirectoryOrCreate"},
    ]


def test_large_numbers_are_written_in_full() -> None:
    """Helm reads the numbers of a values file as floating-point numbers: a million would be 1e+06."""
    values = {"game": {"uid": 10000000, "gid": 12345678}, "limits": {"sessionsPerServer": 1000000}}
    (container,) = render(CHART, values)["DaemonSet/sftp"]["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    names = ("GAME_UID", "GAME_GID", "SESSIONS_PER_SERVER")
    assert [environment[name] for name in names] == ["10000000", "12345678", "1000000"]


def test_without_the_api_it_gets_no_rights() -> None:
    names = render(CHART, {"api": {"enabled": False}})
    assert not [name for name in names if name.endswith("-api")]


@pytest.mark.parametrize(
    "values",
    [
        {"volumeFolders": []},
        {"volumeFolders": ["/"]},
        {"volumeFolders": ["relative"]},
        {"volumeFolders": ["/opt/../etc"]},
        {"volumeFolders": ["/opt/"]},
        {"volumeFolders": ["/opt:/etc"]},
        {"game": {"uid": 0}},
        {"appArmorProfile": "Off"},
        {"image": {"digest": "latest"}},
        {"serversNamespace": ""},
        {"unknown": 1},
        {"limits": {"passwordGuesses": 0}},
        {"podLabels": {"app.kubernetes.io/name": "mine"}},
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="schema"):
        render(CHART, values)
