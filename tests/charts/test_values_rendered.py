"""Each value of the charts has its effect in the manifests.

The two tables have every value once: what it is set to, and where this shows in which manifest. A value that is not in
them fails a test.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
import yaml

from backup_job.places import Places
from backup_job.request import parse
from service.settings import Settings
from tests.charts.rendering import CHARTS, Refused, at, leaves, merged, nested, render

DIGEST = "sha256:" + "0" * 64
POD = "spec.template.spec."
GAME = POD + "containers.0."
TOLERATION = {"key": "games", "operator": "Exists", "effect": "NoSchedule"}
AFFINITY: dict[str, Any] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
BEHAVIOR = {"scaleDown": {"stabilizationWindowSeconds": 60}}
SCHEDULE = {
    "by": {"customer": "acme", "scopes": ["server:power"], "since": "2026-06-01T00:00:00Z", "token": "shop"},
    "cron": "H 4 * * *",
    "enabled": True,
    "steps": [{"backup": {}}, {"stop": {}}, {"wait": 60}, {"start": {}}],
    "timezone": "Europe/Berlin",
}
PEER = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]

# value → (what it is set to, [(manifest, path, expected)], other values that it needs)
Case = tuple[Any, list[tuple[str, str, Any]], dict[str, Any]]


def one(value: Any, manifest: str, path: str, expected: Any = None, **needs: Any) -> Case:
    """A value that shows in one place, unchanged or as `expected`."""
    return value, [(manifest, path, value if expected is None else expected)], needs


S, C, V = "StatefulSet/server-4711", "PersistentVolumeClaim/server-4711", "Service/server-4711"

GAMESERVER: dict[str, Case] = {
    "game": one("luanti", S, "metadata/labels/gameserver~game"),
    "server.id": one("4711", S, "metadata.name", "server-4711"),
    "server.uid": one("6cf83f54", S, "record", '"uid":"6cf83f54"'),
    "server.customer": one("acme", S, "record", '"customer":"acme"'),
    "server.options": one({"motd": "hi"}, S, "record", '"options":{"motd":"hi"}'),
    "server.idleStopMinutes": one(30, S, "record", '"idle_stop_minutes":30'),
    "server.backupKeep": one({"last": 2, "weekly": 4}, S, "record", '"backup_keep":{"last":2,"weekly":4}'),
    "server.idleStopped": one("2026-11-27T02:00:00Z", S, "record", '"idle_stopped":"2026-11-27T02:00:00Z"'),
    "server.suspended": (
        {"reason": "Überfällig", "since": "2026-11-27T02:00:00Z"},
        [
            (manifest, "record", '"suspended":{"reason":"Überfällig","since":"2026-11-27T02:00:00Z"}')
            for manifest in (S, C)
        ]
        + [("Service/server-4711-sftp", "metadata/annotations/gameserver~suspended", "true")],
        {},
    ),
    "server.behindOneHost": one(True, V, "spec.externalTrafficPolicy", "Cluster"),
    "server.restoring": (
        "op-" + "4" * 26,
        [
            # The server is to run, but not yet.
            (S, "spec.replicas", 0),
            *((manifest, "record", f'"restoring":"op-{"4" * 26}"') for manifest in (S, C)),
        ],
        {"replicas": 1},
    ),
    "replicas": one(0, S, "spec.replicas"),
    "schedules": one(
        {"nightly": SCHEDULE},
        S,
        "metadata.annotations.gameserver~schedules",
        json.dumps({"nightly": SCHEDULE}, separators=(",", ":")),
    ),
    # A rendered install is revision 1.
    "keepPodInRevision": one(1, S, "spec.updateStrategy.rollingUpdate.partition"),
    "restartedAt": one("now", S, "spec/template/metadata/annotations", {"gameserver/restarted-at": "now"}),
    "ramGb": (
        8,
        [
            (S, GAME + "resources.requests.memory", "8Gi"),
            (S, GAME + "resources.limits.memory", "8Gi"),
            (S, "env MEMORY", "6144M"),
        ],
        {},
    ),
    "diskGb": one(50, C, "spec.resources.requests.storage", "50Gi"),
    "cpu.request": one("2", S, GAME + "resources.requests.cpu"),
    "cpu.limit": one("4", S, GAME + "resources.limits.cpu"),
    "ephemeralStorage.request": one("64Mi", S, GAME + "resources.requests.ephemeral-storage"),
    "ephemeralStorage.limit": one("2Gi", S, GAME + "resources.limits.ephemeral-storage"),
    "heap.environmentVariable": one("HEAP", S, "env HEAP", "1536M"),
    "image.repository": one("example.com/game", S, GAME + "image", "example.com/game:1", image={"tag": "1"}),
    "image.tag": one("2", S, GAME + "image", "itzg/minecraft-server:2"),
    "image.digest": one(DIGEST, S, GAME + "image", f"itzg/minecraft-server@{DIGEST}"),
    "image.pullPolicy": one("Always", S, GAME + "imagePullPolicy"),
    "imagePullSecrets": one([{"name": "registry"}], S, POD + "imagePullSecrets"),
    "command": one(["/run", "$HOME"], S, GAME + "command", ["/run", "$$HOME"]),
    "args": one(["--motd", "$(HOME)"], S, GAME + "args", ["--motd", "$$(HOME)"]),
    "ports": (
        [{"name": "primary", "port": 8303, "protocol": "UDP"}],
        [
            (V, "spec.ports.0", {"name": "primary", "port": 8303, "targetPort": "primary", "protocol": "UDP"}),
            (S, GAME + "ports.0", {"name": "primary", "containerPort": 8303, "protocol": "UDP"}),
            ("Pod/server-4711-test", "spec.containers.0.env.1.value", "8303"),
        ],
        {},
    ),
    "rcon.enabled": one(False, V, "spec.ports.1", "nothing"),
    "rcon.port": (27015, [(V, "spec.ports.1.port", 27015), (S, "env RCON_PORT", "27015")], {}),
    "rcon.visibility": one("private", "Service/server-4711-rcon", "spec.type", "ClusterIP"),
    "econ.enabled": (
        True,
        [
            (S, "env ECON_PASSWORD_FILE", "/run/gameserver/econ/password"),
            (S, GAME + "ports.2", {"name": "econ", "containerPort": 8304, "protocol": "TCP"}),
            (S, POD + "volumes.2.secret.secretName", "server-4711-econ"),
            ("Secret/server-4711-econ", "type", "Opaque"),
        ],
        {},
    ),
    "econ.port": (
        27000,
        [(S, "env ECON_PORT", "27000"), (S, GAME + "ports.2.containerPort", 27000)],
        {"econ": {"enabled": True}},
    ),
    "stdin": one(True, S, GAME + "stdin"),
    "sftp.enabled": one(False, "Service/server-4711-sftp", "kind", "nothing"),
    "sftp.type": one("LoadBalancer", "Service/server-4711-sftp", "spec.type"),
    "sftp.annotations": one({"example.com/a": "b"}, "Service/server-4711-sftp", "metadata.annotations"),
    "environment": one({"MOTD": "hi"}, S, "env MOTD", "hi"),
    "extraEnv": one([{"name": "TZ", "value": "UTC"}], S, "env TZ", "UTC"),
    "extraVolumes": one([{"name": "tmp", "emptyDir": {}}], S, POD + "volumes.2", {"name": "tmp", "emptyDir": {}}),
    "extraVolumeMounts": one(
        [{"name": "tmp", "mountPath": "/tmp"}], S, GAME + "volumeMounts.2", {"name": "tmp", "mountPath": "/tmp"}
    ),
    "probe.command": (
        ["ping"],
        [(S, GAME + "startupProbe.exec.command", ["ping"]), (S, GAME + "readinessProbe.exec.command", ["ping"])],
        {},
    ),
    "probe.periodSeconds": one(4, S, GAME + "startupProbe.periodSeconds"),
    "probe.readinessPeriodSeconds": one(7, S, GAME + "readinessProbe.periodSeconds"),
    "probe.timeoutSeconds": one(3, S, GAME + "readinessProbe.timeoutSeconds"),
    "probe.startupSeconds": one(61, S, GAME + "startupProbe.failureThreshold", 31),
    "test.commands.minecraft": one(["ping"], "Pod/server-4711-test", "spec.containers.0.command"),
    "terminationGracePeriodSeconds": one(33, S, POD + "terminationGracePeriodSeconds"),
    "stop.durationVariable": one("DURATION", S, "env DURATION", "115"),
    "stop.delayVariable": one(
        "DELAY", S, "env DURATION", "85", stop={"durationVariable": "DURATION"}, environment={"DELAY": "30"}
    ),
    "service.type": one("ClusterIP", V, "spec.type"),
    "service.annotations": one({"example.com/a": "b"}, V, "metadata.annotations"),
    "service.externalHostname": one(
        "one.example.com",
        V,
        "metadata.annotations",
        {
            "external-dns.alpha.kubernetes.io/hostname": "one.example.com",
            "mc-router.itzg.me/externalServerName": "one.example.com",
        },
    ),
    "service.loadBalancerClass": (
        "a/b",
        [(service, "spec.loadBalancerClass", "a/b") for service in (V, f"{V}-sftp")],
        {"service": {"type": "LoadBalancer"}, "sftp": {"type": "LoadBalancer"}},
    ),
    "service.allocateLoadBalancerNodePorts": (
        False,
        [(service, "spec.allocateLoadBalancerNodePorts", False) for service in (V, f"{V}-sftp")],
        {"service": {"type": "LoadBalancer"}, "sftp": {"type": "LoadBalancer"}},
    ),
    "service.loadBalancerSourceRanges": (
        ["192.0.2.0/24"],
        [(service, "spec.loadBalancerSourceRanges", ["192.0.2.0/24"]) for service in (V, f"{V}-sftp")],
        {"service": {"type": "LoadBalancer"}, "sftp": {"type": "LoadBalancer"}},
    ),
    "service.externalTrafficPolicy": (
        "Local",
        [(service, "spec.externalTrafficPolicy", "Local") for service in (V, f"{V}-sftp")],
        {"service": {"type": "LoadBalancer"}, "sftp": {"type": "LoadBalancer"}},
    ),
    "storage.className": one("fast", C, "spec.storageClassName"),
    "storage.mountPath": one("/world", S, GAME + "volumeMounts.0.mountPath"),
    "storage.accessMode": one("ReadWriteMany", C, "spec.accessModes", ["ReadWriteMany"]),
    "storage.deferred": one(True, C, "kind", "nothing"),
    "storage.dataSource": one(
        {"kind": "VolumeSnapshot", "name": "clone-1"},
        C,
        "spec.dataSource",
        {"kind": "VolumeSnapshot", "name": "clone-1", "apiGroup": "snapshot.storage.k8s.io"},
    ),
    "securityContext.runAsUser": one(2000, S, POD + "securityContext.runAsUser"),
    "securityContext.runAsGroup": one(2000, S, POD + "securityContext.runAsGroup"),
    "securityContext.fsGroup": one(2000, S, POD + "securityContext.fsGroup"),
    "securityContext.readOnlyRootFilesystem": one(True, S, GAME + "securityContext.readOnlyRootFilesystem"),
    "podAnnotations": one({"example.com/a": "b"}, S, "spec.template.metadata.annotations"),
    "podLabels": one({"team": "games"}, S, "spec.template.metadata.labels.team", "games"),
    "nodeSelector": one({"pool": "games"}, S, POD + "nodeSelector"),
    "tolerations": one([TOLERATION], S, POD + "tolerations"),
    "affinity": one(AFFINITY, S, POD + "affinity"),
    "priorityClassName": one("games", S, POD + "priorityClassName"),
    "runtimeClassName": one("gvisor", S, POD + "runtimeClassName"),
    "networkPolicy.enabled": one(True, "NetworkPolicy/server-4711", "spec.policyTypes", ["Ingress", "Egress"]),
    "networkPolicy.rconFrom": one(
        PEER,
        "NetworkPolicy/server-4711",
        "spec.ingress.1.from",
        networkPolicy={"enabled": True},
        rcon={"visibility": "private"},
    ),
    "networkPolicy.egressExcept": one(
        ["10.0.0.0/8"],
        "NetworkPolicy/server-4711",
        "spec.egress.1.to.0.ipBlock.except",
        networkPolicy={"enabled": True},
    ),
}
D, A = "Deployment/api", "Service/api"
CONTROLLER = "Deployment/api-controller"
TOKEN = {"name": "shop", "sha256": "0" * 64, "scopes": ["read"]}
TOKENS = {"tokens": {"existingSecret": "mine"}}
TEXTS = {"game": "name: a\n", "values": "{{ options.a | tojson }}\n", "options": "{}"}
HPA, POLICY = "HorizontalPodAutoscaler/api", "NetworkPolicy/api"
RECOVERY = {"existingSecret": "recovery"}
S3_STORE = {
    "store": {
        "kind": "s3",
        "existingSecret": "store",
        "s3": {"endpoint": "https://s3.example.com", "bucket": "worlds"},
    },
    "recoveryKey": RECOVERY,
}
SFTP_STORE = {
    "store": {
        "kind": "sftp",
        "existingSecret": "store",
        "sftp": {"host": "backup.example.com", "user": "worlds", "path": "worlds"},
    },
    "recoveryKey": RECOVERY,
}
FOLDER_STORE = {"store": {"kind": "folder", "folder": {"claim": "worlds"}}, "recoveryKey": RECOVERY}


def stored(value: Any, needs: dict[str, Any], **expected: Any) -> Case:
    """A value of the store, of which API and controller get `expected`."""
    store = json.dumps(expected, sort_keys=True, separators=(",", ":"))
    return value, [(D, "env BACKUP_STORE", store), (CONTROLLER, "env BACKUP_STORE", store)], {"backups": needs}


def an_s3_store(value: Any, **expected: Any) -> Case:
    """A value of an S3 store."""
    plain = {"kind": "s3", "endpoint": "https://s3.example.com", "bucket": "worlds", "prefix": "", "region": ""}
    return stored(value, S3_STORE, **plain | expected)


def an_sftp_store(value: Any, **expected: Any) -> Case:
    """A value of an SFTP store."""
    plain = {"kind": "sftp", "host": "backup.example.com", "port": 22, "user": "worlds", "path": "worlds"}
    return stored(value, SFTP_STORE, **plain | expected)


API: dict[str, Case] = {
    "replicaCount": (
        3,
        [(HPA, "spec.minReplicas", 3), (D, "spec.replicas", "nothing")],
        {},
    ),
    "image.repository": one("example.com/api", D, GAME + "image", "example.com/api:0.1.0"),
    "image.tag": one("2", D, GAME + "image", "localhost/gameserver-api:2"),
    "image.digest": one(DIGEST, D, GAME + "image", f"localhost/gameserver-api@{DIGEST}"),
    "image.pullPolicy": one("Always", D, GAME + "imagePullPolicy"),
    "imagePullSecrets": (
        [{"name": "registry"}, {"name": "mirror"}],
        [
            (D, POD + "imagePullSecrets", [{"name": "registry"}, {"name": "mirror"}]),
            (D, "env DISK_IMAGE_PULL_SECRETS", "registry,mirror"),
            (CONTROLLER, "env BACKUP_IMAGE_PULL_SECRETS", "registry,mirror"),
        ],
        {},
    ),
    "nameOverride": one("other", "Deployment/api-other", "metadata.name", "api-other"),
    "fullnameOverride": one("other", "Deployment/other", "metadata.name"),
    "serversNamespace": (
        "games",
        [
            ("Namespace/games", "metadata.labels.pod-security", "nothing"),
            ("Role/api", "metadata.namespace", "games"),
            (D, "env SERVERS_NAMESPACE", "games"),
        ],
        {},
    ),
    "createServersNamespace": one(False, "Namespace/gameservers", "kind", "nothing"),
    "sftpNamespace": one("files", D, "env SFTP_NAMESPACE"),
    "tokens.existingSecret": (
        "mine",
        [(D, "env TOKENS_SECRET", "mine"), ("Role/api-tokens", "rules.0.resourceNames.0", "mine")],
        {},
    ),
    "tokens.hashes": one([TOKEN], "Secret/api-tokens", "kind", "Secret", tokens={"existingSecret": ""}),
    "acceptedEulas": one(["minecraft", "other"], D, "env ACCEPTED_EULAS", "minecraft,other"),
    "console.auditCommands": one(True, D, "env AUDIT_COMMANDS", "true"),
    "console.stdin": one(True, D, "env CONSOLE_STDIN", "true"),
    "idleStop.defaultMinutes": one(30, D, "env IDLE_STOP_DEFAULT", "30"),
    "idleStop.minMinutes": one(5, D, "env IDLE_STOP_MIN", "5"),
    "idleStop.maxMinutes": one(60, D, "env IDLE_STOP_MAX", "60"),
    "backups.image.repository": one("example.com/backup", D, "env BACKUP_IMAGE", "example.com/backup:0.1.0"),
    "backups.image.tag": one("2", CONTROLLER, "env BACKUP_IMAGE", "localhost/gameserver-backup:2"),
    "backups.image.digest": one(DIGEST, CONTROLLER, "env BACKUP_IMAGE", f"localhost/gameserver-backup@{DIGEST}"),
    "backups.store.kind": stored(
        "folder", {"recoveryKey": RECOVERY, "store": {"folder": {"claim": "a"}}}, kind="folder"
    ),
    "backups.store.existingSecret": one("other", CONTROLLER, "env BACKUP_STORE_SECRET", backups=S3_STORE),
    "backups.store.s3.endpoint": an_s3_store("http://[fd00::7]:9000", endpoint="http://[fd00::7]:9000"),
    "backups.store.s3.bucket": an_s3_store("games.eu", bucket="games.eu"),
    "backups.store.s3.prefix": an_s3_store("games/eu", prefix="games/eu"),
    "backups.store.s3.region": an_s3_store("eu-1", region="eu-1"),
    "backups.store.sftp.host": an_sftp_store("192.0.2.7", host="192.0.2.7"),
    "backups.store.sftp.port": an_sftp_store(2022, port=2022),
    "backups.store.sftp.user": an_sftp_store("other", user="other"),
    "backups.store.sftp.path": an_sftp_store("/srv/worlds", path="/srv/worlds"),
    "backups.store.folder.claim": one("other", CONTROLLER, "env BACKUP_STORE_CLAIM", backups=FOLDER_STORE),
    "backups.recovery.tokenSecret": one(
        "other",
        "CronJob/api-recovery",
        "spec.jobTemplate.spec.template.spec.volumes.2.secret.secretName",
        backups=S3_STORE,
    ),
    "backups.recoveryKey.existingSecret": one("other", CONTROLLER, "env BACKUP_RECOVERY_SECRET", backups=S3_STORE),
    "backups.namespace": (
        "other",
        [
            ("Namespace/other", "metadata.name", "other"),
            ("Namespace/gameservers-backups", "kind", "nothing"),
            ("Role/api-controller-backups", "metadata.namespace", "other"),
            ("RoleBinding/api-controller-backups", "metadata.namespace", "other"),
            ("NetworkPolicy/api-backups-recovery", "metadata.namespace", "other"),
            ("NetworkPolicy/api-recovery", "metadata.namespace", "other"),
            ("CronJob/api-recovery", "metadata.namespace", "other"),
            ("ConfigMap/api-recovery", "metadata.namespace", "other"),
            (CONTROLLER, "env BACKUP_NAMESPACE", "other"),
        ],
        {"backups": S3_STORE, "networkPolicy": {"enabled": True}},
    ),
    "backups.createNamespace": one(False, "Namespace/gameservers-backups", "kind", "nothing", backups=S3_STORE),
    "backups.keep.last": one(9, D, "env BACKUP_KEEP", '{"daily":7,"hourly":0,"last":9,"weekly":4}'),
    "backups.keep.hourly": one(9, D, "env BACKUP_KEEP", '{"daily":7,"hourly":9,"last":3,"weekly":4}'),
    "backups.keep.daily": one(9, D, "env BACKUP_KEEP", '{"daily":9,"hourly":0,"last":3,"weekly":4}'),
    "backups.keep.weekly": one(9, D, "env BACKUP_KEEP", '{"daily":7,"hourly":0,"last":3,"weekly":9}'),
    "backups.perServer": one(9, D, "env BACKUPS_PER_SERVER", "9"),
    "backups.gbPerServer": one(9, D, "env BACKUP_GB_PER_SERVER", "9"),
    "backups.atOnce": one(9, CONTROLLER, "env BACKUPS_AT_ONCE", "9"),
    "backups.daysAfterDelete": one(0, CONTROLLER, "env BACKUP_DAYS_AFTER_DELETE", "0"),
    "backups.undoDays": one(9, CONTROLLER, "env BACKUP_UNDO_DAYS", "9"),
    "backups.proofDays": one(0, CONTROLLER, "env BACKUP_PROOF_DAYS", "0"),
    "backups.pruneHours": one(9, CONTROLLER, "env BACKUP_PRUNE_HOURS", "9"),
    "backups.snapshotClass": one("fast", CONTROLLER, "env BACKUP_SNAPSHOT_CLASS"),
    "backups.jobResources.requests.cpu": one(
        "1",
        CONTROLLER,
        "env BACKUP_JOB_RESOURCES",
        '{"limits":{"memory":"1Gi"},"requests":{"cpu":"1","memory":"64Mi"}}',
    ),
    "backups.jobResources.requests.memory": one(
        "1Gi",
        CONTROLLER,
        "env BACKUP_JOB_RESOURCES",
        '{"limits":{"memory":"1Gi"},"requests":{"cpu":"50m","memory":"1Gi"}}',
    ),
    "backups.jobResources.limits.memory": one(
        "2Gi",
        CONTROLLER,
        "env BACKUP_JOB_RESOURCES",
        '{"limits":{"memory":"2Gi"},"requests":{"cpu":"50m","memory":"64Mi"}}',
    ),
    "limits.minRamGb": one(2, D, "env MIN_RAM_GB", "2"),
    "limits.maxRamGb": one(32, D, "env MAX_RAM_GB", "32"),
    "limits.minDiskGb": one(5, D, "env MIN_DISK_GB", "5"),
    "limits.maxDiskGb": one(50, D, "env MAX_DISK_GB", "50"),
    "externalHost": one("play.example.com", D, "env EXTERNAL_HOST"),
    "diskImage": one("example.com/true:1", D, "env DISK_IMAGE"),
    "serverValues.all": one({"ramGb": 1}, "ConfigMap/api", "data/server-values.yaml", "all:\n  ramGb: 1\ngames: {}"),
    "serverValues.games": one(
        {"minecraft": {"ramGb": 1}},
        "ConfigMap/api",
        "data/server-values.yaml",
        "all: {}\ngames:\n  minecraft:\n    ramGb: 1",
    ),
    "games": (
        {"openttd": TEXTS},
        [
            (
                "ConfigMap/api-games",
                "data",
                {
                    "openttd.game.yaml": TEXTS["game"],
                    "openttd.values.yaml.j2": TEXTS["values"],
                    "openttd.options.schema.json": TEXTS["options"],
                },
            ),
            (D, "env GAMES_DIR", "/etc/gameserver-api/games"),
            (D, POD + "volumes.1.configMap.name", "api-games"),
        ],
        {},
    ),
    "existingGamesConfigMap": one("ours", D, POD + "volumes.1.configMap.name"),
    "helmProcesses": one(8, D, "env HELM_PROCESSES", "8"),
    "helmDaemon": one(False, D, "env HELM_DAEMON", ""),
    "bulk.atOnce": one(8, D, "env BULK_AT_ONCE", "8"),
    "bulk.perMinute": one(60, D, "env BULK_PER_MINUTE", "60"),
    "logLevel": one("debug", D, "env LOG_LEVEL"),
    "extraEnv": one([{"name": "TZ", "value": "UTC"}], D, "env TZ", "UTC"),
    "resources.requests.cpu": one("1", D, GAME + "resources.requests.cpu"),
    "resources.requests.memory": one("1Gi", D, GAME + "resources.requests.memory"),
    "resources.limits.memory": one("2Gi", D, GAME + "resources.limits.memory"),
    "autoscaling.enabled": (False, [(HPA, "kind", "nothing"), (D, "spec.replicas", 2)], {}),
    "autoscaling.maxReplicas": one(9, HPA, "spec.maxReplicas"),
    "autoscaling.targetCPUUtilizationPercentage": one(50, HPA, "spec.metrics.0.resource.target.averageUtilization"),
    "autoscaling.behavior": one(BEHAVIOR, HPA, "spec.behavior"),
    "podDisruptionBudget.enabled": one(False, "PodDisruptionBudget/api", "kind", "nothing"),
    "topologyKey": one("zone", D, POD + "topologySpreadConstraints.0.topologyKey"),
    "drainSeconds": (
        7,
        [(D, GAME + "lifecycle.preStop.sleep.seconds", 7), (D, "env DRAIN_SECONDS", "7")],
        {},
    ),
    "terminationGracePeriodSeconds": one(300, D, POD + "terminationGracePeriodSeconds"),
    "service.type": one("NodePort", A, "spec.type"),
    "service.port": (
        8080,
        [
            (A, "spec.ports.0.port", 8080),
            ("Pod/api-test", "spec.containers.0.env.0.value", "http://$(API_SERVICE_HOST):8080/healthcheck"),
        ],
        {},
    ),
    "service.nodePort": one(30080, A, "spec.ports.0.nodePort", service={"type": "NodePort"}),
    "service.annotations": one({"example.com/a": "b"}, A, "metadata.annotations"),
    "service.loadBalancerClass": one("a/b", A, "spec.loadBalancerClass", service={"type": "LoadBalancer"}),
    "ingress.enabled": one(True, "Ingress/api", "kind", "Ingress", ingress={"host": "a.example.com"}),
    "ingress.className": one("nginx", "Ingress/api", "spec.ingressClassName", ingress={"enabled": True, "host": "a.b"}),
    "ingress.annotations": one(
        {"a/b": "c"}, "Ingress/api", "metadata.annotations", ingress={"enabled": True, "host": "a.b"}
    ),
    "ingress.host": one("a.example.com", "Ingress/api", "spec.rules.0.host", ingress={"enabled": True}),
    "ingress.tlsSecretName": one(
        "tls",
        "Ingress/api",
        "spec.tls",
        [{"hosts": ["a.b"], "secretName": "tls"}],
        ingress={"enabled": True, "host": "a.b"},
    ),
    "metrics.annotations": one(False, D, "spec/template/metadata/annotations/prometheus.io~scrape", "nothing"),
    "metrics.service.enabled": one(False, "Service/api-metrics", "kind", "nothing"),
    "metrics.serviceMonitor.enabled": (
        True,
        [(f"ServiceMonitor/{name}", "kind", "ServiceMonitor") for name in ("api", "api-controller")],
        {},
    ),
    "metrics.serviceMonitor.labels": one(
        {"release": "p"},
        "ServiceMonitor/api",
        "metadata.labels.release",
        "p",
        metrics={"serviceMonitor": {"enabled": True}},
    ),
    "metrics.serviceMonitor.interval": one(
        "5s", "ServiceMonitor/api", "spec.endpoints.0.interval", metrics={"serviceMonitor": {"enabled": True}}
    ),
    "metrics.prometheusRule.enabled": one(True, "PrometheusRule/api", "kind", "PrometheusRule"),
    "metrics.prometheusRule.labels": one(
        {"release": "p"},
        "PrometheusRule/api",
        "metadata.labels.release",
        "p",
        metrics={"prometheusRule": {"enabled": True}},
    ),
    "webhooks.forCustomers": (
        True,
        [(D, "env WEBHOOKS_FOR_CUSTOMERS", "true"), (CONTROLLER, "env WEBHOOKS_FOR_CUSTOMERS", "true")],
        {},
    ),
    "webhooks.allowed": (
        ["10.1.2.0/24", "fd00::/64"],
        [
            (D, "env WEBHOOK_ALLOWED", "10.1.2.0/24,fd00::/64"),
            (CONTROLLER, "env WEBHOOK_ALLOWED", "10.1.2.0/24,fd00::/64"),
            ("NetworkPolicy/api-controller", "spec.egress.3.to.3.ipBlock.cidr", "10.1.2.0/24"),
            ("NetworkPolicy/api-controller", "spec.egress.3.to.4.ipBlock.cidr", "fd00::/64"),
        ],
        {"networkPolicy": {"enabled": True}},
    ),
    "webhooks.refused": (
        ["8.8.8.0/24", "2001:4860::/32"],
        [
            (D, "env WEBHOOK_REFUSED", "8.8.8.0/24,2001:4860::/32"),
            (CONTROLLER, "env WEBHOOK_REFUSED", "8.8.8.0/24,2001:4860::/32"),
            ("NetworkPolicy/api-controller", "spec.egress.3.to.0.ipBlock.except.8", "8.8.8.0/24"),
            ("NetworkPolicy/api-controller", "spec.egress.3.to.1.ipBlock.except.3", "2001:4860::/32"),
        ],
        {"networkPolicy": {"enabled": True}},
    ),
    "controller.replicaCount": one(3, CONTROLLER, "spec.replicas"),
    "controller.operationsAtOnce": one(3, CONTROLLER, "env CONTROLLER_OPERATIONS_AT_ONCE", "3"),
    "controller.resources.requests.cpu": one("1", CONTROLLER, GAME + "resources.requests.cpu"),
    "controller.resources.requests.memory": one("1Gi", CONTROLLER, GAME + "resources.requests.memory"),
    "controller.resources.limits.memory": one("2Gi", CONTROLLER, GAME + "resources.limits.memory"),
    "controller.serviceAccount.create": one(
        False, "ServiceAccount/own", "kind", "nothing", controller={"serviceAccount": {"name": "own"}}
    ),
    "controller.serviceAccount.name": (
        "other",
        [
            ("ServiceAccount/other", "metadata.name", "other"),
            (CONTROLLER, POD + "serviceAccountName", "other"),
            ("RoleBinding/api-controller", "subjects.0.name", "other"),
            ("RoleBinding/api-controller-tokens", "subjects.0.name", "other"),
            ("RoleBinding/api-controller-backups", "subjects.0.name", "other"),
            ("RoleBinding/api-controller-webhooks", "subjects.0.name", "other"),
            ("ClusterRoleBinding/gameserver-system-api-controller", "subjects.0.name", "other"),
        ],
        {"backups": S3_STORE},
    ),
    "controller.serviceAccount.annotations": one({"a/b": "c"}, "ServiceAccount/api-controller", "metadata.annotations"),
    "serviceAccount.create": one(False, "ServiceAccount/own", "kind", "nothing", serviceAccount={"name": "own"}),
    "serviceAccount.name": (
        "other",
        [
            ("ServiceAccount/other", "metadata.name", "other"),
            (D, POD + "serviceAccountName", "other"),
            ("RoleBinding/api", "subjects.0.name", "other"),
            ("RoleBinding/api-tokens", "subjects.0.name", "other"),
            ("ClusterRoleBinding/gameserver-system-api", "subjects.0.name", "other"),
        ],
        {},
    ),
    "serviceAccount.annotations": one({"a/b": "c"}, "ServiceAccount/api", "metadata.annotations"),
    "rbac.create": (
        False,
        [
            (f"{kind}/{name}", "kind", "nothing")
            for kind, name in (
                ("Role", "api"),
                ("RoleBinding", "api"),
                ("Role", "api-tokens"),
                ("RoleBinding", "api-tokens"),
                ("ClusterRole", "gameserver-system-api"),
                ("ClusterRoleBinding", "gameserver-system-api"),
                ("Role", "api-controller"),
                ("RoleBinding", "api-controller"),
                ("Role", "api-webhooks"),
                ("RoleBinding", "api-webhooks"),
                ("Role", "api-controller-webhooks"),
                ("RoleBinding", "api-controller-webhooks"),
                ("Role", "api-controller-backups"),
                ("RoleBinding", "api-controller-backups"),
                ("Role", "api-controller-tokens"),
                ("RoleBinding", "api-controller-tokens"),
                ("ClusterRole", "gameserver-system-api-controller"),
                ("ClusterRoleBinding", "gameserver-system-api-controller"),
            )
        ],
        {"backups": S3_STORE},
    ),
    "networkPolicy.enabled": one(True, POLICY, "spec.policyTypes", ["Ingress", "Egress"]),
    "networkPolicy.from": one(PEER, POLICY, "spec.ingress.0.from", networkPolicy={"enabled": True}),
    "networkPolicy.metricsFrom": one(PEER, POLICY, "spec.ingress.1.from", networkPolicy={"enabled": True}),
    "networkPolicy.storeTo": (
        PEER,
        [(f"NetworkPolicy/{name}", "spec.egress.0.to", PEER) for name in ("api-backups", "api-backups-recovery")],
        {"networkPolicy": {"enabled": True}, "backups": S3_STORE},
    ),
    "networkPolicy.apiServer": one(
        "192.0.2.1/32", POLICY, "spec.egress.0.to.0.ipBlock.cidr", networkPolicy={"enabled": True}
    ),
    "networkPolicy.apiServerPorts": one(
        [1234], POLICY, "spec.egress.0.ports", [{"port": 1234, "protocol": "TCP"}], networkPolicy={"enabled": True}
    ),
    "podAnnotations": one({"a": "b"}, D, "spec.template.metadata.annotations.a", "b"),
    "podLabels": one({"team": "games"}, D, "spec.template.metadata.labels.team", "games"),
    "nodeSelector": one({"pool": "system"}, D, POD + "nodeSelector"),
    "tolerations": one([TOLERATION], D, POD + "tolerations"),
    "affinity": one(AFFINITY, D, POD + "affinity"),
    "priorityClassName": one("high", D, POD + "priorityClassName"),
}

CASES = [("gameserver", path, *case) for path, case in GAMESERVER.items()]
CASES += [("api", path, *case) for path, case in API.items()]


def seen(manifests: dict[str, Any], manifest: str, path: str) -> Any:
    """The value at a path, or "nothing". `env NAME` and `record` are short for longer paths."""
    node = manifests.get(manifest)
    if path == "record":
        return node and node["metadata"]["annotations"]["gameserver/server"]
    if path.startswith("env "):
        variables = at(node, GAME + "env") or []
        node = next((v["value"] for v in variables if v["name"] == path.removeprefix("env ")), None)
    else:
        node = at(node, path)
    return "nothing" if node is None else node


@pytest.mark.parametrize(("chart", "path", "value", "places", "needs"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_a_value_is_rendered(
    chart: str, path: str, value: Any, places: list[tuple[str, str, Any]], needs: dict[str, Any]
) -> None:
    """It shows in its place when it is set, and does not otherwise."""
    required = TOKENS if chart == "api" else {}
    try:
        before = render(chart, merged(required, needs))
    except Refused:
        before = {}  # A required value.
    after = render(chart, merged(merged(required, needs), nested(path, value)))
    for manifest, field, expected in places:
        shown = seen(after, manifest, field)
        if field == "record":
            assert expected in shown
        else:
            assert shown == expected
    # Both are the same without the value: the release's name has the id, and the chart api renders only with tokens.
    if path not in ("server.id", "tokens.existingSecret"):
        assert before != after
        assert any(seen(before, manifest, field) != seen(after, manifest, field) for manifest, field, _ in places)


@pytest.mark.parametrize(("chart", "table"), [("gameserver", GAMESERVER), ("api", API)])
def test_every_value_is_in_the_table(chart: str, table: dict[str, Case]) -> None:
    """A new value needs a row in its table."""
    assert set(table) == leaves(yaml.safe_load((CHARTS / chart / "values.yaml").read_text()))


HEAPS = [(1, 512), (2, 1536), (3, 2304), (4, 3072), (8, 6144), (12, 9216), (16, 13312), (64, 62464)]


@pytest.mark.parametrize(("ram", "heap"), HEAPS)
def test_the_heap_leaves_room_beside_it(ram: int, heap: int) -> None:
    """The heap leaves a quarter of the memory: at least 512 MiB and at most 3 GiB."""
    assert seen(render("gameserver", {"ramGb": ram}), S, "env MEMORY") == f"{heap}M"


STOP = {"delayVariable": "DELAY", "durationVariable": "DURATION"}


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({"terminationGracePeriodSeconds": 600, "environment": {"DELAY": "10"}}, "585"),
        ({"terminationGracePeriodSeconds": 600, "environment": {"DELAY": "10", "DURATION": "60"}}, "60"),
        ({"environment": {"DELAY": "10"}, "extraEnv": [{"name": "DELAY", "value": "20"}]}, "95"),
        ({"extraEnv": [{"name": "DURATION", "value": "7"}]}, "7"),
        ({"terminationGracePeriodSeconds": 3, "environment": {"DELAY": "10"}}, "1"),
    ],
)
def test_the_image_kills_its_game_no_earlier_than_kubernetes_would(values: dict[str, Any], seconds: str) -> None:
    """What is left of the grace period is the game's, unless somebody has said otherwise."""
    assert seen(render("gameserver", {"stop": STOP, **values}), S, "env DURATION") == seconds


def test_the_operators_environment_goes_before_the_charts_and_that_before_the_games() -> None:
    """Each name occurs once, and no option of a game can name another file for the password."""
    values = {
        "environment": {"RCON_PASSWORD_FILE": "/data/mine", "MOTD": "game's", "MEMORY": "99G"},
        "extraEnv": [{"name": "MOTD", "value": "operator's"}],
    }
    variables = at(render("gameserver", values)[S], GAME + "env")
    texts = {variable["name"]: variable["value"] for variable in variables}
    assert len(texts) == len(variables)
    assert texts == {
        "ENABLE_RCON": "true",
        "MEMORY": "1536M",
        "MOTD": "operator's",
        "RCON_PASSWORD_FILE": "/run/gameserver/rcon/password",
        "RCON_PORT": "25575",
    }


def test_a_game_without_a_command_of_its_own_is_tested_with_its_probe() -> None:
    """A game on UDP needs only its probe's command."""
    values = {"game": "teeworlds", "probe": {"command": ["teeworlds-health"]}}
    assert at(render("gameserver", values)["Pod/server-4711-test"], "spec.containers.0.command") == ["teeworlds-health"]


def test_a_stopped_server_has_no_test() -> None:
    """Nothing could answer it. The disk, ports and password stay."""
    running, stopped = render("gameserver"), render("gameserver", {"replicas": 0})
    assert running.keys() - stopped.keys() == {"Pod/server-4711-test"}


def test_private_rcon_is_in_no_public_service() -> None:
    """It has no node port, and the NetworkPolicy does not open it to everyone."""
    manifests = render("gameserver", {"rcon": {"visibility": "private"}, "networkPolicy": {"enabled": True}})
    assert [port["name"] for port in manifests[V]["spec"]["ports"]] == ["primary"]
    assert at(manifests["NetworkPolicy/server-4711"], "spec.ingress.0") == {
        "ports": [{"port": 25565, "protocol": "TCP"}]
    }


def test_the_external_console_is_in_no_service() -> None:
    """Customers cannot reach it, and the NetworkPolicy opens it to the API and its controller alone."""
    values = {"econ": {"enabled": True}, "rcon": {"enabled": False}, "networkPolicy": {"enabled": True}}
    manifests = render("gameserver", values)
    ports = [port for name, each in manifests.items() if name.startswith("Service/") for port in each["spec"]["ports"]]
    assert {port["name"] for port in ports} == {"primary", "sftp"}
    everyone, consoles = at(manifests["NetworkPolicy/server-4711"], "spec.ingress")
    assert everyone == {"ports": [{"port": 25565, "protocol": "TCP"}]}
    assert consoles["ports"] == [{"port": 8304, "protocol": "TCP"}]
    assert at(consoles["from"][0], "podSelector.matchExpressions.0.values") == ["api", "controller"]


def test_the_password_of_the_external_console_is_one_that_teeworlds_takes() -> None:
    """It cuts a password at 31 characters, and would then take only the cut one."""
    secret = render("gameserver", {"econ": {"enabled": True}})["Secret/server-4711-econ"]
    assert re.fullmatch(r"[A-Za-z0-9]{31}", b64decode(secret["data"]["password"]).decode())


@pytest.mark.parametrize(
    ("values", "game", "files"),
    [
        ({}, "Local", "Cluster"),
        ({"service": {"externalHostname": "one.example.com"}}, "Cluster", "Cluster"),
        ({"service": {"type": "LoadBalancer"}, "sftp": {"type": "LoadBalancer"}}, "Cluster", "nothing"),
        ({"service": {"type": "ClusterIP"}, "sftp": {"type": "ClusterIP"}}, "nothing", "nothing"),
        ({"server": {"behindOneHost": True}}, "Cluster", "Cluster"),
        ({"server": {"behindOneHost": True}, "service": {"externalTrafficPolicy": "Local"}}, "Local", "Cluster"),
        ({"service": {"externalTrafficPolicy": "Cluster"}}, "Cluster", "Cluster"),
        ({"service": {"externalTrafficPolicy": "Local"}}, "Local", "Cluster"),
    ],
)
def test_the_game_sees_its_players_addresses_where_they_come_to_its_node(
    values: dict[str, Any], game: str, files: str
) -> None:
    """A host name or a load balancer may lead to any node. The SFTP port works on every node."""
    manifests = render("gameserver", values)
    assert seen(manifests, V, "spec.externalTrafficPolicy") == game
    assert seen(manifests, f"{V}-sftp", "spec.externalTrafficPolicy") == files


def test_tcp_and_udp_on_one_port_are_two_ports_of_the_same_number() -> None:
    """Kubernetes gives both the same node port number, because the manifest names none."""
    ports = render("gameserver", {"ports": [{"name": "primary", "port": 7, "protocol": "both"}]})[V]["spec"]["ports"]
    assert ports[:2] == [
        {"name": "primary", "port": 7, "targetPort": "primary", "protocol": "TCP"},
        {"name": "primary-udp", "port": 7, "targetPort": "primary-udp", "protocol": "UDP"},
    ]
    assert not any("nodePort" in port for port in ports)


@pytest.mark.parametrize(
    ("backups", "port"),
    [
        (S3_STORE, 443),
        (merged(S3_STORE, nested("store.s3.endpoint", "http://s3.example.com")), 80),
        (merged(S3_STORE, nested("store.s3.endpoint", "http://[fd00::7]:9000")), 9000),
        (SFTP_STORE, 22),
        (merged(SFTP_STORE, nested("store.sftp.port", 2022)), 2022),
        (FOLDER_STORE, None),
    ],
)
def test_the_jobs_of_backups_reach_dns_and_the_port_of_the_store_alone(
    backups: dict[str, Any], port: int | None
) -> None:
    """A folder is mounted by the node, so its Jobs reach nothing. Nothing reaches a Job."""
    manifests = render("api", {**TOKENS, "backups": backups, "networkPolicy": {"enabled": True}})
    dns = {
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
    }
    for name in ("api-backups", "api-backups-recovery"):
        assert manifests[f"NetworkPolicy/{name}"]["spec"] == {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "gameserver-backup"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [{"ports": [{"port": port, "protocol": "TCP"}]}, dns] if port else [],
        }


@pytest.mark.parametrize("backups", [{}, S3_STORE, SFTP_STORE, FOLDER_STORE], ids=["none", "s3", "sftp", "folder"])
def test_the_programs_read_what_the_chart_gives_them(backups: dict[str, Any]) -> None:
    """API and controller take the same settings, and the Jobs' program takes the store. The defaults are the same."""
    manifests = render("api", {**TOKENS, "backups": backups})
    api, controller = (
        Settings.from_environment({each["name"]: each.get("value", "") for each in at(manifests[name], GAME + "env")})
        for name in (D, CONTROLLER)
    )
    assert controller == replace(api, port=controller.port, drain_seconds=controller.drain_seconds)
    plain = Settings()
    for name in (
        "keep",
        "job_resources",
        "gb_per_server",
        "days_after_delete",
        "undo_days",
        "proof_days",
        "prune_hours",
    ):
        assert getattr(api, f"backup_{name}") == getattr(plain, f"backup_{name}")
    assert (api.backups_per_server, api.backups_at_once) == (plain.backups_per_server, plain.backups_at_once)
    if backups:
        request = parse("catalogue", json.dumps({"store": api.backup_store}), Places())
        recovery = parse("recover", manifests["ConfigMap/api-recovery"]["data"]["request.json"], Places())
        assert recovery.store == request.store
        assert recovery.api == "http://api.gameserver-system.svc:80"
        assert request.store is not None
        assert request.store.kind == backups["store"]["kind"]
    else:
        assert api.backup_store is None


def test_without_a_store_there_is_no_namespace_for_its_jobs() -> None:
    """A backup is then a snapshot. A Job that restores it reaches nothing."""
    manifests = render("api", {**TOKENS, "networkPolicy": {"enabled": True}})
    assert seen(manifests, CONTROLLER, "env BACKUP_STORE") == seen(manifests, CONTROLLER, "env BACKUP_NAMESPACE") == ""
    assert manifests["NetworkPolicy/api-backups"]["spec"]["egress"] == []
    own = [name for name in manifests if "backups" in name or "recovery" in name]
    assert own == ["NetworkPolicy/api-backups"]


def test_a_new_configuration_restarts_the_api_and_new_tokens_do_not() -> None:
    """Replicas watch the tokens."""
    checksum = "spec/template/metadata/annotations"
    plain = at(render("api", TOKENS)[D], checksum)
    assert at(render("api", {**TOKENS, "serverValues": {"all": {"ramGb": 4}}})[D], checksum) != plain
    assert at(render("api", {**TOKENS, "games": {"openttd": TEXTS}})[D], checksum) != plain
    hashes = [render("api", {"tokens": {"hashes": [{**TOKEN, "sha256": digit * 64}]}})[D] for digit in "01"]
    assert hashes[0] == hashes[1]


def test_no_upgrade_touches_the_tokens_that_the_api_has_given_out() -> None:
    """Helm applies and removes only the fields in its manifests. The manifest of this Secret has no data.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management, and of a release without it
    https://helm.sh/docs/faq/changes_since_helm2/#improved-upgrade-strategy-3-way-strategic-merge-patches
    """
    for values in (TOKENS, {"tokens": {"hashes": [TOKEN]}}):
        secret = render("api", values)["Secret/api-issued-tokens"]
        assert secret.keys() == {"apiVersion", "kind", "metadata", "type"}


def test_the_api_reads_two_secrets_of_its_own_namespace_and_writes_one() -> None:
    """Its environment has the names of both. It has no rights to other Secrets."""
    for values, operators in ((TOKENS, "mine"), ({"tokens": {"hashes": [TOKEN]}}, "api-tokens")):
        manifests = render("api", {**values, "serversNamespace": "games"})
        issued = "api-issued-tokens"
        assert [seen(manifests, D, f"env {name}") for name in ("TOKENS_SECRET", "ISSUED_TOKENS_SECRET")] == [
            operators,
            issued,
        ]
        secrets = {"apiGroups": [""], "resources": ["secrets"]}
        role = manifests["Role/api-tokens"]
        assert role["metadata"]["namespace"] == "gameserver-system"
        assert role["rules"] == [
            {**secrets, "resourceNames": [operators, issued], "verbs": ["get", "list", "watch"]},
            {**secrets, "resourceNames": [issued], "verbs": ["patch"]},
        ]
