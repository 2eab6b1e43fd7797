"""The chart gameserver-disk-driver: least privilege, what no upgrade may change, and the programs that run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from local import binaries
from tests.charts.rendering import CHARTS, CI_FILES, Manifest, Refused, at, chart_of, pods, render

CHART = "disk-driver"
TEMPLATES = CHARTS / CHART / "templates"
FILES = [file for file in CI_FILES if chart_of(file) == CHART]
SIDECARS = ("provisioner", "resizer", "snapshotter")
POD = "spec.template.spec"

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def containers(manifests: dict[str, Manifest]) -> dict[str, Manifest]:
    """The pod's containers by name."""
    (spec,) = pods(manifests).values()
    return {container["name"]: container for container in spec["containers"]}


def granted(manifests: dict[str, Manifest], suffix: str) -> dict[str, set[str]]:
    """Resource → verbs of the roles for a sidecar, with the kind of the role before the resource."""
    rights: dict[str, set[str]] = {}
    for manifest in manifests.values():
        if manifest["kind"] in ("Role", "ClusterRole") and manifest["metadata"]["name"].endswith(suffix):
            for rule in manifest["rules"]:
                for resource in rule["resources"]:
                    rights.setdefault(f"{manifest['kind']} {resource}", set()).update(rule["verbs"])
    return rights


def test_the_provisioner_makes_volumes_and_publishes_room_and_nothing_else() -> None:
    """What its code asks for with --node-deployment; it sees neither nodes nor Secrets."""
    assert granted(render(CHART), "-provisioner") == {
        "ClusterRole persistentvolumes": {"get", "list", "watch", "create", "patch", "delete"},
        "ClusterRole persistentvolumeclaims": {"list", "watch", "update"},
        "ClusterRole storageclasses": {"list", "watch"},
        "ClusterRole events": {"create", "patch"},
        "ClusterRole volumesnapshots": {"get", "list", "watch", "update"},
        "ClusterRole volumesnapshotcontents": {"get"},
        "Role csistoragecapacities": {"list", "watch", "create", "update", "delete"},
        "Role pods": {"get"},
    }


def test_the_resizer_sees_claims_and_marks_them_and_nothing_else() -> None:
    """It sees no pods, because it runs with --handle-volume-inuse-error=false."""
    manifests = render(CHART)
    assert granted(manifests, "-resizer") == {
        "ClusterRole persistentvolumes": {"list", "watch", "patch"},
        "ClusterRole persistentvolumeclaims": {"list", "watch"},
        "ClusterRole persistentvolumeclaims/status": {"patch"},
        "ClusterRole events": {"create", "patch"},
        "Role leases": {"get", "create", "update"},
    }
    assert "--handle-volume-inuse-error=false" in containers(manifests)["resizer"]["args"]


def test_the_snapshotter_sees_contents_of_snapshots_and_nothing_else() -> None:
    """The snapshots themselves are the snapshot controller's."""
    assert granted(render(CHART), "-snapshotter") == {
        "ClusterRole volumesnapshotcontents": {"get", "list", "watch", "patch"},
        "ClusterRole volumesnapshotcontents/status": {"update", "patch"},
        "ClusterRole volumesnapshotclasses": {"list", "watch"},
        "ClusterRole events": {"create", "patch"},
    }


@each_file
def test_no_right_reaches_beyond_storage(file: Path) -> None:
    """`nodes/proxy` is root on every node, and a Secret may be anything; no rule has a wildcard."""
    for manifest in render(CHART, {}, file).values():
        for rule in manifest.get("rules", []):
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not {word for word in words if "*" in word or word.startswith(("nodes", "secrets"))}
            assert "pods" not in words or manifest["kind"] == "Role"


def test_each_right_has_its_reason() -> None:
    """A comment before each rule."""
    roles = [file for file in TEMPLATES.glob("*role-*.yaml") if "binding" not in file.name]
    assert len(roles) == 5
    for file in roles:
        lines = [line.strip() for line in file.read_text().splitlines() if not line.strip().startswith("{{")]
        rules = [number for number, line in enumerate(lines) if line.startswith("- apiGroups")]
        assert rules
        assert [file.name for number in rules if not lines[number - 1].startswith("# ")] == []


@each_file
def test_only_the_driver_is_privileged_and_only_the_sidecars_have_the_token(file: Path) -> None:
    """Whoever gets into a sidecar has no capability, and whoever gets into the driver no account."""
    manifests = render(CHART, {}, file)
    (spec,) = pods(manifests).values()
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for name, container in containers(manifests).items():
        context = container["securityContext"]
        tokens = [mount for mount in container["volumeMounts"] if mount["name"] == "token"]
        assert context["readOnlyRootFilesystem"] is True
        assert context.get("privileged", False) is (name == "driver")
        assert bool(tokens) is (name != "driver")
        if name != "driver":
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["allowPrivilegeEscalation"] is False
            assert {mount["name"] for mount in container["volumeMounts"]} == {"plugin", "token"}
            assert all(mount["readOnly"] for mount in container["volumeMounts"])


def test_what_the_driver_mounts_appears_on_the_node() -> None:
    """The pool has the same path in the container, because volumes have the paths of their folders."""
    mounts = {mount["name"]: mount for mount in containers(render(CHART))["driver"]["volumeMounts"]}
    both = {name: mount["mountPath"] for name, mount in mounts.items() if "mountPropagation" in mount}
    assert both == {"pool": "/var/lib/gameserver-disks", "pods": "/var/lib/kubelet/pods"}
    assert {mounts[name]["mountPropagation"] for name in both} == {"Bidirectional"}


@each_file
def test_the_driver_and_the_kubelet_mean_the_same_socket(file: Path) -> None:
    """The kubelet gets the path on the node of the socket that the driver has at /csi."""
    manifests = render(CHART, {}, file)
    (spec,) = pods(manifests).values()
    folders = {volume["name"]: volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume}
    flags = dict(argument.split("=", 1) for argument in containers(manifests)["driver"]["args"])
    assert flags["--kubelet-socket"] == f"{folders['plugin']}/csi.sock"
    assert flags["--pool"] == folders["pool"]
    assert folders["registration"] == folders["plugin"].replace("plugins/disk-driver.gameserver", "plugins_registry")


@each_file
def test_no_value_changes_what_kubernetes_refuses_to_change(file: Path) -> None:
    """An upgrade with any value works: https://kubernetes.io/docs/concepts/storage/storage-classes/ has no updates."""
    manifests = render(CHART, {}, file)
    (storage,) = (manifest for manifest in manifests.values() if manifest["kind"] == "StorageClass")
    fixed = {key: value for key, value in storage.items() if key not in ("apiVersion", "kind", "metadata")}
    assert fixed == {
        "provisioner": "disk-driver.gameserver",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
    }
    assert manifests["CSIDriver/disk-driver.gameserver"]["spec"] == {
        "attachRequired": False,
        "podInfoOnMount": False,
        "fsGroupPolicy": "File",
        "storageCapacity": True,
        "volumeLifecycleModes": ["Persistent"],
    }


@pytest.mark.parametrize(("default", "written"), [(True, "true"), (False, "false")])
def test_a_class_says_whether_it_is_the_default(default: bool, written: str) -> None:
    """Both ways, so that an upgrade can take it back."""
    manifest = render(CHART, {"storageClass": {"default": default}})["StorageClass/gameserver-disks"]
    assert manifest["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": written}


def test_without_snapshots_the_chart_needs_no_snapshot_kinds() -> None:
    """It installs in a cluster that has none of them, and has no right to them."""
    manifests = render(CHART, {"snapshots": {"enabled": False}})
    assert containers(manifests).keys() == {"driver", "provisioner", "resizer"}
    assert "snapshot.storage" not in str(manifests)
    assert not [name for name in manifests if "snapshot" in name.lower()]


def test_each_node_serves_itself_and_one_resizer_serves_all() -> None:
    """The resizer has no mode for nodes; the Lease in its role is the one that it takes."""
    manifests = render(CHART)
    by_name = containers(manifests)
    for name in ("provisioner", "snapshotter"):
        assert "--node-deployment" in by_name[name]["args"]
        assert "NODE_NAME" in {variable["name"] for variable in by_name[name]["env"]}
    assert "--leader-election" in by_name["resizer"]["args"]
    # https://github.com/kubernetes-csi/external-resizer: "external-resizer-" and the driver's name.
    lease = re.sub("[^a-zA-Z0-9-]", "-", "external-resizer-disk-driver.gameserver")
    assert at(manifests["Role/disks-resizer"], "rules.1.resourceNames") == [lease]


@pytest.mark.parametrize("sidecar", SIDECARS)
def test_the_sidecars_are_the_versions_that_the_local_cluster_tests(sidecar: str) -> None:
    """The chart's default names the official image of what local/go/csi compiles."""
    image = containers(render(CHART))[sidecar]["image"]
    name = f"csi-{sidecar}"
    assert image == f"registry.k8s.io/sig-storage/{name}:{binaries.csi_version(name)}"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{POD}.containers.0.image", "registry.example.com/gameserver-disk-driver@sha256:" + "0123456789abcdef" * 4),
        (f"{POD}.containers.0.imagePullPolicy", "Always"),
        (f"{POD}.containers.1.image", "registry.example.com/csi-provisioner:v6.4.0"),
        (f"{POD}.containers.1.resources.limits.memory", "512Mi"),
        (f"{POD}.containers.2.image", "registry.example.com/csi-resizer:v2.3.0"),
        (f"{POD}.containers.2.resources.limits.memory", "512Mi"),
        (f"{POD}.containers.3.image", "registry.example.com/csi-snapshotter@sha256:" + "0123456789abcdef" * 4),
        (f"{POD}.containers.3.resources.limits.memory", "512Mi"),
        (f"{POD}.containers.0.resources.limits.memory", "1Gi"),
        (f"{POD}.imagePullSecrets", [{"name": "registry"}]),
        (f"{POD}.terminationGracePeriodSeconds", 10),
        (f"{POD}.nodeSelector", {"games": "yes"}),
        (f"{POD}.tolerations", [{"key": "games", "operator": "Exists"}]),
        (f"{POD}.priorityClassName", "high"),
        ("spec.updateStrategy.type", "OnDelete"),
        ("spec/template/metadata/annotations/example.com~note", "disks"),
        ("spec/template/metadata/annotations/prometheus.io~scrape", None),
        ("spec/template/metadata/labels/example.com~team", "disks"),
        (
            f"{POD}.containers.0.args",
            [
                "--node=$(NODE_NAME)",
                "--pool=/mnt/pool",
                "--endpoint=unix:///csi/csi.sock",
                "--registration=/registration/disk-driver.gameserver-reg.sock",
                "--kubelet-socket=/data/kubelet/plugins/disk-driver.gameserver/csi.sock",
                "--overcommit=1.5",
                "--reserve-percent=5",
                "--snapshot-allowance-percent=50",
                "--http=:9810",
            ],
        ),
    ],
)
def test_values_arrive(path: str, expected: object) -> None:
    """Those of the ci file that sets every value."""
    manifests = render(CHART, {}, CHARTS / CHART / "ci" / "full-values.yaml")
    assert at(manifests["DaemonSet/disks"], path) == expected


def test_names_and_peers_arrive() -> None:
    """The values that show outside the DaemonSet."""
    manifests = render(CHART, {}, CHARTS / CHART / "ci" / "full-values.yaml")
    assert {"StorageClass/worlds", "VolumeSnapshotClass/worlds", "NetworkPolicy/disks"} <= manifests.keys()
    assert manifests["ServiceAccount/disks"]["metadata"]["annotations"] == {"example.com/owner": "disks"}
    policy = manifests["NetworkPolicy/disks"]["spec"]
    assert policy["ingress"][0]["from"][0]["namespaceSelector"]
    assert policy["egress"] == [
        {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    ]
    assert "StorageClass/gameserver-disks" not in render(CHART, {"storageClass": {"create": False}})


@pytest.mark.parametrize(
    "values",
    [
        {"pool": {"path": "/"}},
        {"pool": {"path": "relative"}},
        {"pool": {"path": "/mnt/../etc"}},
        {"pool": {"path": "/mnt/"}},
        {"pool": {"overcommit": 0}},
        {"pool": {"reservePercent": 100}},
        {"kubeletPath": "/"},
        {"snapshots": {"allowancePercent": -1}},
        {"storageClass": {"name": "Game Disks"}},
        {"storageClass": {"parameters": {}}},
        {"provisioner": {"image": {"tag": ""}}},
        {"image": {"digest": "latest"}},
        {"unknown": 1},
        {"podLabels": {"app.kubernetes.io/name": "mine"}},
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    """With a message that names them."""
    with pytest.raises(Refused, match="schema"):
        render(CHART, values)
