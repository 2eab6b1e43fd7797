"""What each Job is to be, and that what is asked is what the Job's program reads."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from backup_job.places import Places
from backup_job.request import parse
from service.backups import requests
from service.backups.jobs import JobSpec, job
from service.backups.records import ServerBackups
from service.backups.requests import Disk, disk_of, job_name
from service.servers.objects import ServerObjects
from service.settings import Settings

UID = "k3c9w1"
OPERATION = f"op-{'0' * 26}"
BACKUP = f"b-{'1' * 20}"
STORED = "a" * 64
SERVER = ServerBackups(UID, 7, "alice", "teeworlds")
S3 = {"kind": "s3", "endpoint": "http://192.0.2.1:7070", "bucket": "worlds"}
SETTINGS = Settings(
    servers_namespace="gs",
    backup_store=S3,
    backup_store_secret="store",
    backup_namespace="gs-backups",
    backup_image="backup:1",
    backup_recovery_secret="recovery",
)
POD = {
    "securityContext": {"runAsUser": 1001, "fsGroup": 1001},
    "tolerations": [{"key": "games", "operator": "Exists"}],
    "nodeSelector": {"games": "yes"},
}
DISK = Disk("server-7", "pool", 3, "disk-driver.gameserver", "node-b", POD)


def specs(settings: Settings = SETTINGS) -> list[JobSpec]:
    """A Job for each command."""
    about = (settings, SERVER, DISK, OPERATION)
    return [
        requests.job_for_catalogue(settings, "catalogue"),
        requests.job_for_init(settings, SERVER, OPERATION),
        requests.job_for_forget(settings, SERVER, "forget-1", [STORED], [BACKUP], erase=True),
        requests.job_for_backup(*about, BACKUP, {"game": "teeworlds"}, first_pass=True),
        requests.job_for_backup(*about, BACKUP, {"game": "teeworlds"}, snapshot="snapshot"),
        requests.job_for_inspect(*about, ["castle"], stored=STORED),
        requests.job_for_lay_out(*about, "beside", [], snapshot="snapshot"),
        requests.job_for_place(*about, ["castle"]),
        requests.job_for_undo(*about, "op-before"),
        requests.job_for_clean(*about, ["op-before"]),
        requests.job_for_proof(*about, STORED),
    ]


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.command)
def test_the_program_reads_what_is_asked(spec: JobSpec) -> None:
    assert parse(spec.command, json.dumps(spec.request), Places()).command == spec.command


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.command)
def test_only_jobs_without_a_customers_data_have_the_recovery_key(spec: JobSpec) -> None:
    with_data = bool(spec.world or spec.source or spec.scratch)
    assert with_data != bool(spec.recovery)
    assert spec.namespace == ("gs" if with_data else "gs-backups")


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.command)
def test_nothing_of_a_customer_and_no_secret_stands_in_a_manifest(spec: JobSpec) -> None:
    text = json.dumps(job(spec))
    for word in ("alice", "teeworlds", "castle", "192.0.2.1", BACKUP, STORED):
        assert word not in text


def test_names_are_those_of_the_operation_and_phase_and_fit() -> None:
    assert [job_name(OPERATION, "first-pass"), job_name(OPERATION, "backup", 2)] == [
        f"{OPERATION}-first-pass",
        f"{OPERATION}-backup-2",
    ]
    assert all(len(spec.name) + len("-source") + 6 <= 63 for spec in specs())


def test_a_backup_reads_the_snapshot_on_the_disks_node_as_the_game() -> None:
    spec = requests.job_for_backup(SETTINGS, SERVER, DISK, OPERATION, BACKUP, {"ramGb": 1}, snapshot="snapshot")
    assert spec.request == {
        "store": S3,
        "uid": UID,
        "backup": BACKUP,
        "settings": {"ramGb": 1},
        "source": "/source",
    }
    pod = job(spec)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 1001
    assert pod["tolerations"] == POD["tolerations"]
    claim = next(volume for volume in pod["volumes"] if volume["name"] == "source")["ephemeral"]["volumeClaimTemplate"]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "3Gi"}},
        "storageClassName": "pool",
        "dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "snapshot"},
    }
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms[0]["matchExpressions"][0]["values"] == ["node-b"]


def test_a_backup_without_snapshots_only_reads_the_disk() -> None:
    spec = requests.job_for_backup(SETTINGS, SERVER, DISK, OPERATION, BACKUP, {}, first_pass=True)
    (mount,) = _mounts(spec, "world")
    assert mount == {"name": "world", "mountPath": "/world", "readOnly": True}
    assert (spec.request["source"], spec.request["first_pass"]) == ("/world", True)


def test_of_a_folder_store_a_servers_job_has_that_servers_part_alone() -> None:
    folder = replace(SETTINGS, backup_store={"kind": "folder"}, backup_store_secret="", backup_store_claim="backups")
    _, init, _, backup, *_ = specs(folder)
    assert _mounts(init, "store") == [{"name": "store", "mountPath": "/store"}]
    assert _mounts(backup, "store") == [{"name": "store", "mountPath": f"/store/{UID}", "subPath": UID}]


def _mounts(spec: JobSpec, name: str) -> list[dict[str, Any]]:
    mounts = job(spec)["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    return [mount for mount in mounts if mount["name"] == name]


CLAIM = {
    "metadata": {"name": "server-7"},
    "spec": {"storageClassName": "pool", "resources": {"requests": {"storage": "2Gi"}}},
    "status": {"phase": "Bound", "capacity": {"storage": "3Gi"}},
}
STATEFULSET = {"spec": {"template": {"spec": POD}}}
VOLUME = {
    "spec": {
        "csi": {"driver": "disk-driver.gameserver"},
        "nodeAffinity": {
            "required": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [
                            {"key": "disk-driver.gameserver/node", "operator": "In", "values": ["node-b"]}
                        ]
                    }
                ]
            }
        },
    }
}


def test_a_disk_of_one_node_is_there() -> None:
    elsewhere = {"spec": {"nodeName": "node-a"}}
    assert disk_of(ServerObjects(7, STATEFULSET, elsewhere, CLAIM), VOLUME) == DISK


def test_a_disk_of_the_network_is_where_its_pod_is() -> None:
    volume = {"spec": {"csi": {"driver": "cloud"}}}
    disk = disk_of(ServerObjects(7, STATEFULSET, {"spec": {"nodeName": "node-a"}}, CLAIM), volume)
    assert disk == replace(DISK, driver="cloud", node="node-a")
    stopped = disk_of(ServerObjects(7, STATEFULSET, None, CLAIM), volume)
    assert stopped == replace(DISK, driver="cloud", node=None)


def test_a_claim_without_a_volume_is_no_disk() -> None:
    assert disk_of(ServerObjects(7, STATEFULSET, None, {**CLAIM, "status": {"phase": "Pending"}}), None) is None
    assert disk_of(ServerObjects(7, STATEFULSET), None) is None
