"""Invalid values are refused with a message that names them; nothing is rendered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from service.servers.chartvalues import ChartValues
from tests.charts.rendering import CHARTS, RELEASES, Refused, render

TOKEN = {"name": "shop", "sha256": "0" * 64, "scopes": ["read"]}
TOKENS = {"tokens": {"existingSecret": "mine"}}
TEXTS = {"game": "name: a\n", "values": "{}\n", "options": "{}"}

S3 = {"kind": "s3", "existingSecret": "store", "s3": {"endpoint": "https://s3.example.com", "bucket": "worlds"}}
SFTP = {"kind": "sftp", "existingSecret": "store", "sftp": {"host": "a.example.com", "user": "b", "path": "c"}}
RECOVERY = {"existingSecret": "recovery"}


def backups(store: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Values of the API's chart with a store."""
    return {**TOKENS, "backups": {"store": store, "recoveryKey": RECOVERY, **more}}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("api", {**TOKENS, "webhooks": {"allowed": ["10.1.2.3"]}}, "at '/webhooks/allowed/0'"),
    ("api", {**TOKENS, "webhooks": {"refused": ["inside"]}}, "at '/webhooks/refused/0'"),
    ("gameserver", {"ramGb": 0}, "at '/ramGb': minimum: got 0, want 1"),
    ("gameserver", {"ramGb": "2"}, "at '/ramGb': got string, want integer"),
    ("gameserver", {"ramGb": 2.5}, "at '/ramGb': got number, want integer"),
    ("gameserver", {"diskGb": -1}, "at '/diskGb': minimum"),
    ("gameserver", {"replicas": 2}, "at '/replicas': value must be one of 0, 1"),
    ("gameserver", {"game": "Mine Craft"}, "at '/game'"),
    ("gameserver", {"ports": [{"name": "main", "port": 1, "protocol": "TCP"}]}, "value must be 'primary'"),
    ("gameserver", {"ports": [{"name": "primary", "port": 70000, "protocol": "TCP"}]}, "at '/ports/0/port': maximum"),
    ("gameserver", {"ports": [{"name": "primary", "port": 1, "protocol": "SCTP"}]}, "at '/ports/0/protocol'"),
    ("gameserver", {"ports": [{"name": "primary", "port": 25575, "protocol": "TCP"}]}, "25575/TCP is used twice"),
    ("gameserver", {"server": {"id": "1"}}, 'server.id is "1", but the release is named "server-4711"'),
    ("gameserver", {"server": {"id": "01"}}, "at '/server/id'"),
    ("gameserver", {"server": {"suspended": {"since": "2026-11-27T02:00:00Z"}}}, "at '/server/suspended'"),
    ("gameserver", {"server": {"suspended": {"reason": "x", "since": "now"}}}, "at '/server/suspended/since'"),
    ("gameserver", {"server": {"suspended": {"reason": ""}}}, "at '/server/suspended/reason'"),
    ("gameserver", {"server": {"suspended": {"because": "x"}}}, "additional properties 'because'"),
    ("gameserver", {"server": {"restoring": "true"}}, "at '/server/restoring'"),
    ("gameserver", {"storage": {"dataSource": {"name": "clone-1"}}}, "at '/storage/dataSource'"),
    ("gameserver", {"storage": {"dataSource": {"kind": "Pod", "name": "x"}}}, "at '/storage/dataSource/kind'"),
    ("gameserver", {"rcon": {"visibility": "secret"}}, "at '/rcon/visibility'"),
    (
        "gameserver",
        {"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 60}]},
        "at '/tolerations/0/effect': value must be 'NoExecute'",
    ),
    ("gameserver", {"extraVolumes": [{"name": "x", "emptyDir": {"sizeLimit": "1GB"}}]}, "emptyDir/sizeLimit"),
    ("gameserver", {"econ": {"enabled": True, "port": 25575}}, "25575/TCP is used twice"),
    ("gameserver", {"econ": {"enabled": "yes"}}, "at '/econ/enabled'"),
    ("gameserver", {"stdin": "yes"}, "at '/stdin'"),
    ("gameserver", {"environment": {"A B": "x"}}, "invalid propertyName 'A B'"),
    ("gameserver", {"environment": {"A": 1}}, "at '/environment/A': got number, want string"),
    ("gameserver", {"environment": {"A": "\x00"}}, "at '/environment/A'"),
    ("gameserver", {"extraEnv": [{"name": "A"}, {"name": "A"}]}, "extraEnv has A twice"),
    ("gameserver", {"extraVolumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "additional properties 'hostPath'"),
    ("gameserver", {"extraVolumes": [{"name": "data", "emptyDir": {}}]}, "at '/extraVolumes/0/name'"),
    (
        "gameserver",
        {"extraVolumeMounts": [{"name": "x", "mountPath": "/a/../b"}]},
        "at '/extraVolumeMounts/0/mountPath'",
    ),
    ("gameserver", {"securityContext": {"runAsUser": 0}}, "at '/securityContext/runAsUser': minimum"),
    ("gameserver", {"securityContext": {"privileged": True}}, "additional properties 'privileged'"),
    ("gameserver", {"sidecars": []}, "additional properties 'sidecars'"),
    ("gameserver", {"podLabels": {"gameserver/id": "1"}}, "invalid propertyName 'gameserver/id'"),
    ("gameserver", {"image": {"digest": "abc"}}, "at '/image/digest'"),
    ("gameserver", {"service": {"type": "ExternalName"}}, "at '/service/type'"),
    ("gameserver", {"image": {"repository": "a/b:1"}}, "at '/image/repository'"),
    ("gameserver", {"nodeSelector": {"pool": "big iron"}}, "at '/nodeSelector/pool'"),
    ("gameserver", {"podAnnotations": {"a b": "x"}}, "invalid propertyName 'a b'"),
    ("gameserver", {"affinity": {"nodeAffinity": {"typo": []}}}, "additional properties 'typo'"),
    ("gameserver", {"tolerations": [{"operator": "Exists", "value": "x"}]}, "at '/tolerations/0/value'"),
    (
        "gameserver",
        {"service": {"loadBalancerSourceRanges": ["10.0.0.0/33"]}},
        "at '/service/loadBalancerSourceRanges/0'",
    ),
    (
        "gameserver",
        {"extraEnv": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a"}}}]},
        "missing property 'key'",
    ),
    ("api", {"tokens": {"hashes": [{**TOKEN, "customer": "A & B"}]}}, "at '/tokens/hashes/0/customer'"),
    ("api", {**TOKENS, "externalHost": "play.example.com:25565"}, "at '/externalHost'"),
    ("api", {"tokens": {}}, "nobody could call the API"),
    ("api", {"tokens": {"existingSecret": "a", "hashes": [TOKEN]}}, "set either tokens.existingSecret or"),
    ("api", {"tokens": {"hashes": [{**TOKEN, "sha256": "my-token"}]}}, "at '/tokens/hashes/0/sha256'"),
    ("api", {"tokens": {"hashes": [{**TOKEN, "token": "my-token"}]}}, "additional properties 'token'"),
    ("api", {"tokens": {"hashes": [{**TOKEN, "scopes": ["root"]}]}}, "at '/tokens/hashes/0/scopes/0'"),
    ("api", {"tokens": {"hashes": [{**TOKEN, "servers": []}]}}, "at '/tokens/hashes/0/servers'"),
    ("api", {"tokens": {"hashes": [{**TOKEN, "servers": ["1"]}]}}, "at '/tokens/hashes/0/servers/0'"),
    ("api", {**TOKENS, "replicaCount": 7}, "autoscaling.maxReplicas (6) must not be less than replicaCount (7)"),
    ("api", {**TOKENS, "ingress": {"enabled": True}}, "ingress.host is required"),
    ("api", {**TOKENS, "serviceAccount": {"create": False}}, "serviceAccount.name is required"),
    (
        "api",
        {**TOKENS, "games": {"a": TEXTS}, "existingGamesConfigMap": "b"},
        "set either games or existingGamesConfigMap",
    ),
    ("api", {**TOKENS, "games": {"a": {"game": ""}}}, "missing properties 'values', 'options'"),
    (
        "api",
        {**TOKENS, "limits": {"minRamGb": 8, "maxRamGb": 4}},
        "limits.minRamGb (8) must not exceed",
    ),
    ("api", backups({"kind": "ftp"}), "at '/backups/store/kind'"),
    (
        "api",
        backups({"kind": "s3", "s3": S3["s3"]}),
        "backups.store.existingSecret is required when backups.store.kind is",
    ),
    ("api", backups({"kind": "s3", "existingSecret": "a"}), "backups.store.s3.endpoint is required"),
    ("api", backups({**S3, "s3": {"endpoint": "https://s3.example.com"}}), "backups.store.s3.bucket is required"),
    ("api", backups({**S3, "s3": {"endpoint": "s3.example.com"}}), "at '/backups/store/s3/endpoint'"),
    ("api", backups({**S3, "s3": {"endpoint": "https://a.example.com/b"}}), "at '/backups/store/s3/endpoint'"),
    ("api", backups({**S3, "s3": {"endpoint": "https://user:x@a.example.com"}}), "at '/backups/store/s3/endpoint'"),
    ("api", backups({**S3, "s3": {"bucket": "My_Bucket"}}), "at '/backups/store/s3/bucket'"),
    ("api", backups({**S3, "s3": {"prefix": "a/../b"}}), "at '/backups/store/s3/prefix'"),
    ("api", backups({**S3, "s3": {"accessKey": "a"}}), "additional properties 'accessKey' not allowed"),
    ("api", backups({**SFTP, "existingSecret": ""}), "backups.store.existingSecret is required"),
    ("api", backups({**SFTP, "sftp": {"host": "a", "user": "b"}}), "backups.store.sftp.path is required"),
    ("api", backups({**SFTP, "sftp": {"host": "a.example.com:22"}}), "at '/backups/store/sftp/host'"),
    ("api", backups({**SFTP, "sftp": {"path": "/a/"}}), "at '/backups/store/sftp/path'"),
    ("api", backups({"kind": "folder"}), "backups.store.folder.claim is required"),
    ("api", backups({"s3": S3["s3"]}), 'is set, but backups.store.kind is ""'),
    (
        "api",
        backups({**S3, "folder": {"claim": "a"}}),
        'folder.claim is set, but backups.store.kind is "s3"',
    ),
    ("api", backups({"existingSecret": "a"}), "backups.store.existingSecret is set, but"),
    ("api", {**TOKENS, "backups": {"store": S3}}, "backups.recoveryKey.existingSecret is required with a store"),
    ("api", backups(S3, namespace="gameservers"), "must be a namespace of its own, not gameservers"),
    ("api", backups(S3, namespace="gameserver-system"), "must be a namespace of its own, not gameserver-system"),
    ("api", {**backups(S3, namespace="files"), "sftpNamespace": "files"}, "must be a namespace of its own, not files"),
    ("api", {**backups(S3), "serversNamespace": "s" * 60}, "set backups.namespace"),
    ("api", backups(S3, perServer=51), "at '/backups/perServer': maximum"),
    ("api", backups(S3, keep={"dayly": 1}), "additional properties 'dayly' not allowed"),
    ("api", {**TOKENS, "drainSeconds": 60}, "terminationGracePeriodSeconds is 120"),
    ("api", {**TOKENS, "typo": 1}, "additional properties 'typo' not allowed"),
    (
        "api",
        {**TOKENS, "metrics": {"service": {"enabled": False}, "serviceMonitor": {"enabled": True}}},
        "needs metrics.service",
    ),
]


@pytest.mark.parametrize(("chart", "values", "message"), REFUSED)
def test_bad_values_stop_with_a_message(chart: str, values: dict[str, Any], message: str) -> None:
    """The message names the value and what is wrong with it."""
    with pytest.raises(Refused) as refused:
        render(chart, values)
    assert message in str(refused.value)


#: What the templates of the chart gameserver refuse with `fail`, and why the API never causes it.
FAILS = {
    "The release is named": "the API names it by the id",
    "server.id is": "the API sets it",
    "diskGb is": "the API asks how large the disk is",
    "extraEnv has": "ChartValues.clashes",
    "ports: %s": "ChartValues.clashes",
}


def test_the_api_refuses_at_its_start_what_the_chart_would_refuse() -> None:
    """This covers each value above that an operator can give, and each `fail` of the templates."""
    chart = ChartValues(CHARTS / "gameserver")
    for name, values, _ in REFUSED:
        if name == "gameserver":
            assert chart.mistakes(values) or chart.clashes(values), values
    templates = "".join(file.read_text() for file in (CHARTS / "gameserver" / "templates").glob("*.*"))
    fails = re.findall(r'fail \(printf "(.*?)"', templates)
    assert len(fails) == templates.count("fail ") == len(FAILS)
    assert all(any(said.startswith(known) for known in FAILS) for said in fails)


def test_no_part_of_a_servers_values_takes_names_that_nothing_reads() -> None:
    """Otherwise a typo passes the schema, and Kubernetes refuses each create, or nothing refuses it."""
    schema = json.loads((CHARTS / "gameserver" / "values.schema.json").read_text())

    def parts(place: str, part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(part, dict):
            yield place, part
        for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
            yield from parts(f"{place}/{key}", value)

    objects = {place: part for place, part in parts("", schema) if part.get("type") == "object"}
    assert len(objects) > 40
    opened = {place for place, part in objects.items() if "additionalProperties" not in part}
    # Helm's own, and what is data.
    assert opened - {"/properties/server/properties/options"} == {"/properties/global"}


@pytest.mark.parametrize("release", ["minecraft", "server-0", "server-01", "server-x", "server-1-2"])
def test_a_release_that_is_not_named_by_its_id_is_refused(release: str) -> None:
    """The API, the SFTP agent and operators find a server by that name."""
    with pytest.raises(Refused, match="Name a server's release server-<id>"):
        render("gameserver", release=release)


@pytest.mark.parametrize("chart", RELEASES)
def test_no_template_evaluates_a_value(chart: str) -> None:
    """`tpl` would evaluate a customer's text."""
    for file in (CHARTS / chart / "templates").rglob("*"):
        if file.is_file():
            assert " tpl " not in file.read_text()
