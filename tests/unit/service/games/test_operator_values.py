"""The operator's values for servers are checked before any server is created."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.errors import StartupError
from service.games import catalogue, operator_values
from service.servers.chartvalues import ChartValues
from service.settings import Settings

CHART = ChartValues(Settings.chart_path)
GAMES = catalogue.load(catalogue.BUILT_IN, chart=CHART)

VOLUME = "all: {extraVolumes: [{name: a, emptyDir: {}}], extraVolumeMounts: [{name: a, mountPath: /a, "

WRONG: dict[str, tuple[str, str]] = {
    "a typo": ("all: {ramGB: 4}", "1: all.ramGB is unknown; did you mean `ramGb`? That comes from each create, as"),
    "a typo further in": (
        "games:\n  minecraft:\n    image:\n      tagg: x\n",
        "4: games.minecraft.image.tagg is unknown",
    ),
    "a name unlike any other": (
        "all: {probe: {x: 1}}",
        "1: all.probe.x is unknown; expected one of command, periodSeconds",
    ),
    "no such game": (
        "all: {}\ngames:\n  minecarft: {}\n",
        "3: games.minecarft is not a game: it is unknown; did you mean",
    ),
    "not a mapping": ("games: {minecraft: 4}", "1: games.minecraft must be a mapping"),
    "a number as a string": ("all: {terminationGracePeriodSeconds: '60'}", "must be a whole number, not a string"),
    "a string as a number": (
        "all: {environment: {DEBUG: 1}}",
        "must be a string, not a whole number: write it in quotes",
    ),
    "a string as a boolean": (
        "all: {podAnnotations: {a: yes}}",
        "must be a string, not true or false: write it in quotes",
    ),
    "a version as a number": ("all: {image: {tag: 5.6}}", "must be a string, not a number with a fraction"),
    "null": ("all: {service: null}", "all.service must be a mapping, not nothing"),
    "a choice": ("all: {service: {type: Nodeport}}", "must be one of NodePort, LoadBalancer, ClusterIP"),
    "an alternative": ("all: {cpu: {limit: two}}", "all.cpu.limit must be cores such as"),
    "an image": (
        "games: {luanti: {image: {repository: Mine Test}}}",
        "games.luanti.image.repository must be an image's name without its tag",
    ),
    "a number": ("all: {securityContext: {runAsUser: 0}}", "0 is less than the minimum of 1"),
    "a reserved label": (
        "all: {podLabels: {gameserver/id: x}}",
        "all.podLabels.gameserver/id is not an allowed name",
    ),
    "an item": (
        "games: {teeworlds: {ports: [{name: primary, port: 1, protocl: UDP}]}}",
        "1: games.teeworlds.ports[0].protocl is unknown; did you mean `protocol`?",
    ),
    "no primary port": (
        "games: {teeworlds: {ports: [{name: main, port: 1, protocol: UDP}]}}",
        "games.teeworlds.ports has no port named primary",
    ),
    "a value from each create": ("all: {ramGb: 4}", "all.ramGb comes from each create, as `ram_gb`, and cannot be set"),
    "whether RCON is public": ("all: {rcon: {visibility: private}}", "all.rcon.visibility comes from each create"),
    "whether it runs": ("all: {replicas: 0}", "all.replicas comes from each start and stop"),
    "helm's global": ("all: {global: {}}", "all.global has no effect here"),
    "a duplicate key": ("all:\n  storage: {}\n  storage: {}\n", "3: is not YAML: the key storage appears twice"),
    "a key that YAML reads as a boolean": ("all: {environment: {NO: x}}", "is not YAML: the key NO needs quotes"),
    "only with one game": (
        "all: {rcon: {port: 25565}}",
        "1: all.rcon.port uses 25565/TCP for both the game and the remote console",
    ),
    "only with another game": (
        "games: {teeworlds: {rcon: {enabled: true}, ports: [{name: primary, port: 25575, protocol: both}]}}",
        "games.teeworlds.rcon.enabled uses 25575/TCP for both the game and the remote console",
    ),
    "ports without the one that is asked for players": (
        "games:\n  minecraft:\n    ports: [{name: primary, port: 25565, protocol: UDP}]\n",
        "3: games.minecraft.ports replaces the port at which the game is asked for its players: the game has no "
        "TCP port named primary (with the game minecraft)",
    ),
    "one port twice": (
        "games: {luanti: {ports: [{name: primary, port: 1, protocol: UDP}, {name: b, port: 1, protocol: both}]}}",
        "games.luanti.ports[1] has the name, or the port and protocol, of another port",
    ),
    "a longer delay of the stop than the stop": (
        "games:\n  minecraft:\n    environment: {STOP_SERVER_ANNOUNCE_DELAY: '120'}\n",
        "3: games.minecraft.environment.STOP_SERVER_ANNOUNCE_DELAY kills the game at a stop before it can save: "
        "`terminationGracePeriodSeconds` is 120 and must be at least 135, which is STOP_SERVER_ANNOUNCE_DELAY (120)",
    ),
    "the same in extraEnv": (
        "games: {minecraft: {extraEnv: [{name: STOP_SERVER_ANNOUNCE_DELAY, value: '120'}]}}",
        "1: games.minecraft.extraEnv kills the game at a stop",
    ),
    "a stop shorter than its delay": (
        "games: {minecraft: {terminationGracePeriodSeconds: 10}}",
        "games.minecraft.terminationGracePeriodSeconds kills the game at a stop before it can save",
    ),
    "a delay with its unit": (
        "games: {minecraft: {environment: {STOP_SERVER_ANNOUNCE_DELAY: 10s}}}",
        "STOP_SERVER_ANNOUNCE_DELAY must be a whole number of seconds (with the game minecraft)",
    ),
    "an image that kills before the save": (
        "games:\n  minecraft:\n    environment: {STOP_DURATION: '5'}\n",
        "3: games.minecraft.environment.STOP_DURATION kills the game at a stop before it can save: STOP_DURATION is 5 "
        "and must be at least 10, or 0 to let Kubernetes alone do it (with the game minecraft)",
    ),
    "the same in a variable that overrides another": (
        "games: {minecraft: {environment: {STOP_DURATION: '60'}, extraEnv: [{name: STOP_DURATION, value: '9.5'}]}}",
        "1: games.minecraft.extraEnv kills the game at a stop before it can save: STOP_DURATION is 9.5",
    ),
    "a time until the kill with its unit": (
        "games: {minecraft: {environment: {STOP_DURATION: 60s}}}",
        "STOP_DURATION must be a whole number of seconds, of at least 10, not 60s (with the game minecraft)",
    ),
    "a negative time until the kill": (
        "games: {minecraft: {environment: {STOP_DURATION: '-60'}}}",
        "STOP_DURATION must be a whole number of seconds, of at least 10, not -60",
    ),
    "one variable twice": ("all: {extraEnv: [{name: A}, {name: A}]}", "all.extraEnv[1] repeats the name A"),
    "an image with its tag": ("all: {image: {repository: 'itzg/minecraft-server:java21'}}", "name without its tag"),
    "a node's label": ("all: {nodeSelector: {pool: big iron}}", "all.nodeSelector.pool does not match"),
    "an annotation's name": (
        "all: {podAnnotations: {a b: x}}",
        "all.podAnnotations.a b is not an allowed name",
    ),
    "a rule of affinity": (
        "all: {affinity: {nodeAffinity: {requiredDuringScheduling: {}}}}",
        "requiredDuringScheduling is unknown; did you mean `requiredDuringSchedulingIgnoredDuringExecution`?",
    ),
    "seconds of a toleration": (
        "all: {tolerations: [{key: a, operator: Exists, effect: NoSchedule, tolerationSeconds: 60}]}",
        "all.tolerations[0].effect must be NoExecute if tolerationSeconds is set",
    ),
    "a rule of nodes without values": (
        "all: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
        "{nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: In}]}]}}}}",
        "matchExpressions[0] `values` is missing",
    ),
    "a rule of nodes with needless values": (
        "all: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
        "{nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: Exists, values: [ssd]}]}]}}}}",
        "matchExpressions[0].values must be nothing: the operator needs no values",
    ),
    "a rule of nodes with a word for a number": (
        "all: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
        "{nodeSelectorTerms: [{matchExpressions: [{key: cores, operator: Gt, values: [many]}]}]}}}}",
        "matchExpressions[0].values[0] must be a number",
    ),
    "a field of the pod": (
        "all: {extraEnv: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.nodename}}}]}",
        "fieldRef.fieldPath must be a field of the pod that a variable may take, such as spec.nodeName",
    ),
    "a size of a volume": (
        "all: {extraVolumes: [{name: a, emptyDir: {sizeLimit: 1GB}}]}",
        "all.extraVolumes[0].emptyDir.sizeLimit must be a size such as 512Mi",
    ),
    "a port's name": (
        "games: {luanti: {ports: [{name: primary, port: 1, protocol: UDP}, {name: a--b, port: 2, protocol: TCP}]}}",
        "games.luanti.ports[1].name must be at most 11 lowercase letters",
    ),
    "a toleration": ("all: {tolerations: [{key: a, operator: Exists, value: b}]}", "[0].value must be nothing"),
    "a secret's key": (
        "all: {extraEnv: [{name: A, valueFrom: {secretKeyRef: {name: a, ky: b}}}]}",
        "all.extraEnv[0].valueFrom.secretKeyRef.ky is unknown; did you mean `key`?",
    ),
    "a value and a source": (
        "all: {extraEnv: [{name: A, value: b, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}",
        "all.extraEnv[0] takes either `value` or `valueFrom`",
    ),
    "an address range": (
        "all: {service: {loadBalancerSourceRanges: [192.0.2.0/33]}}",
        "all.service.loadBalancerSourceRanges[0] must be an address range such as 192.0.2.0/24",
    ),
    "a limit below the chart's request": (
        "all: {cpu: {limit: 100m}}",
        "all.cpu.limit requests 250m but limits it to 100m",
    ),
    "a mount without a volume": (
        "all: {extraVolumes: [{name: maps, emptyDir: {}}], extraVolumeMounts: [{name: map, mountPath: /maps}]}",
        "all.extraVolumeMounts[0].name names no volume of `extraVolumes`: map is unknown; did you mean `maps`?",
    ),
    "a mount over the disk": (
        "all: {extraVolumes: [{name: maps, emptyDir: {}}], extraVolumeMounts: [{name: maps, mountPath: /data}]}",
        "all.extraVolumeMounts[0].mountPath is /data, where another volume is mounted",
    ),
    "a mount of a folder above": (VOLUME + "subPath: ../a}]}", "subPath must be a path without `..`"),
    "a mount of an absolute path": (VOLUME + "subPath: /a}]}", "[0].subPath must be a path without `..` that does not"),
    "a mount over the processes": (
        "all: {storage: {mountPath: /proc/1}}",
        "all.storage.mountPath must not be in /proc, where nothing can be mounted",
    ),
    "a file outside its volume": (
        "all: {extraVolumes: [{name: a, configMap: {name: b, items: [{key: c, path: /etc/x}]}}]}",
        "configMap.items[0].path must be a path without `..` that does not begin with `/`",
    ),
    "a secret's name": (
        "all: {extraEnv: [{name: A, valueFrom: {secretKeyRef: {name: My Sec, key: b}}}]}",
        "all.extraEnv[0].valueFrom.secretKeyRef.name does not match",
    ),
    "the name of a secret's key": (
        "all: {extraEnv: [{name: A, valueFrom: {secretKeyRef: {name: a, key: a b}}}]}",
        "secretKeyRef.key must be a key of a ConfigMap or Secret: letters, digits",
    ),
    "a label of the pod": (
        """all: {extraEnv: [{name: A, valueFrom: {fieldRef: {fieldPath: "metadata.labels['a b']"}}}]}""",
        "fieldRef.fieldPath must be a field of the pod that a variable may take",
    ),
    "a resource": (
        "all: {extraEnv: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.foo}}}]}",
        "resourceFieldRef.resource must be one of the container's resources, such as limits.memory",
    ),
    "a unit of a resource": (
        "all: {extraEnv: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1Mi}}}]}",
        "resourceFieldRef.divisor must be one of 0, 1, 1m",
    ),
    "a field of nodes": (
        "all: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
        "{nodeSelectorTerms: [{matchFields: [{key: metadata.foo, operator: In, values: [a]}]}]}}}}",
        "matchFields[0].key must be metadata.name",
    ),
    "colons alone": (
        "all: {service: {loadBalancerSourceRanges: ['::::/8']}}",
        "all.service.loadBalancerSourceRanges[0] must be an address range such as 192.0.2.0/24",
    ),
    "an exception that is everything": (
        "all: {networkPolicy: {egressExcept: [10.0.0.0/8, 0.0.0.0/0]}}",
        "all.networkPolicy.egressExcept[1] must be a part of 0.0.0.0/0 or ::/0, not all of it",
    ),
    "an exception elsewhere": (
        "all: {networkPolicy: {rconFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 192.0.2.0/24]}}]}}",
        "all.networkPolicy.rconFrom[0].ipBlock.except[1] must be a part of 10.0.0.0/8, not all of it",
    ),
    "the domain of a label": (f"all: {{podLabels: {{{'a' * 254}/b: c}}}}", "is not an allowed name"),
    "too many annotations": (
        f"all: {{service: {{annotations: {{a: {'x' * 131_072}}}}}}}",
        "all.service.annotations are more than 128 KiB in all",
    ),
    "a long variable": (f"all: {{environment: {{A: {'x' * 131_070}}}}}", "all.environment.A is longer than 128 KiB"),
    "an empty part of a class's name": (
        "all: {priorityClassName: a..b}",
        "all.priorityClassName must be lowercase letters, digits and `-`, in parts that `.` separates",
    ),
    "a dashed part of a class's name": (
        "all: {runtimeClassName: a.-b}",
        "all.runtimeClassName must be lowercase letters",
    ),
    "an empty part of a storage class": (
        "all: {storage: {className: a..b}}",
        "all.storage.className must be lowercase letters",
    ),
    "an empty part of a label's domain": (
        "all: {nodeSelector: {a..b/c: x}}",
        "all.nodeSelector.a..b/c is not an allowed name: must be letters",
    ),
    "an empty part of a load balancer's class": (
        "all: {service: {type: LoadBalancer, loadBalancerClass: a..b/C_d}}",
        "all.service.loadBalancerClass must be letters, digits",
    ),
    "an empty part of the domain of the pod's label": (
        """all: {extraEnv: [{name: A, valueFrom: {fieldRef: {fieldPath: "metadata.labels['a..b/c']"}}}]}""",
        "fieldRef.fieldPath must be a field of the pod that a variable may take",
    ),
    "a long domain of the pod's label": (
        "all: {extraEnv: [{name: A, valueFrom: {fieldRef: {fieldPath: "
        f"""\"metadata.labels['{"a" * 254}/c']\"}}}}}}]}}""",
        "fieldRef.fieldPath must have a domain of at most 253 characters",
    ),
    "an empty part of a node's name": (
        "all: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
        "{nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [a..b]}]}]}}}}",
        "matchFields[0].values[0] must be lowercase letters",
    ),
    "the disk over the console's password": (
        "games: {minecraft: {storage: {mountPath: /run/gameserver/rcon}}}",
        "games.minecraft.storage.mountPath is /run/gameserver/rcon, where the password of rcon is mounted",
    ),
    "one file from two sources": (
        "all: {extraVolumes: [{name: a, projected: {sources: [{secret: {name: b, items: [{key: c, path: d}]}}, "
        "{downwardAPI: {items: [{path: d, fieldRef: {fieldPath: metadata.name}}]}}]}}]}",
        "all.extraVolumes[0].projected.sources[1].downwardAPI.items has the path d, which the volume has already",
    ),
    "an endless token": (
        "all: {extraVolumes: [{name: a, projected: {sources: "
        "[{serviceAccountToken: {path: b, expirationSeconds: 4294967297}}]}}]}",
        "serviceAccountToken.expirationSeconds 4294967297 is greater than the maximum of 4294967296",
    ),
    "a profile of AppArmor": (
        "all: {podAnnotations: {container.apparmor.security.beta.kubernetes.io/game: bad}}",
        "must be runtime/default, unconfined or localhost/<profile>",
    ),
    "the profile of another container": (
        "all: {podAnnotations: {container.apparmor.security.beta.kubernetes.io/main: runtime/default}}",
        "names no container of the pod: its only one is game",
    ),
    "the cost of a pod's deletion": (
        "all: {podAnnotations: {controller.kubernetes.io/pod-deletion-cost: '05'}}",
        "pod-deletion-cost must be a whole number of 32 bits",
    ),
    "an endless cost of a pod's deletion": (
        f"all: {{podAnnotations: {{controller.kubernetes.io/pod-deletion-cost: '{'9' * 5000}'}}}}",
        "pod-deletion-cost must be a whole number of 32 bits",
    ),
    "the ranges of a load balancer": (
        "all: {service: {type: LoadBalancer, annotations: "
        "{service.beta.kubernetes.io/load-balancer-source-ranges: '10.0.0.0/8,'}}}",
        "load-balancer-source-ranges must be address ranges such as 192.0.2.0/24,2001:db8::/32",
    ),
    "ranges without a load balancer": (
        "all: {sftp: {annotations: {service.beta.kubernetes.io/load-balancer-source-ranges: 10.0.0.0/8}}}",
        "all.sftp.annotations.service.beta.kubernetes.io/load-balancer-source-ranges is for the type LoadBalancer, "
        "and this is NodePort",
    ),
    "a disk that is made later": ("all: {storage: {deferred: true}}", "all.storage.deferred comes from each create"),
    "another disk": (
        "all: {storage: {dataSource: {kind: VolumeSnapshot, name: a}}}",
        "all.storage.dataSource comes from each create",
    ),
    "schedules": ("all: {schedules: {}}", "all.schedules comes from the calls that set schedules"),
    "a list as a key": ("all: {? [a] : b}", "1: is not YAML: a key must be a string"),
    "a list for all": ("all: []", "1: `all` must be a mapping"),
    "a list of games": ("games: []", "1: `games` must be a mapping"),
    "a list for a game": ("games: {minecraft: []}", "1: games.minecraft must be a mapping"),
    "a list": ("[]", "1: must be a mapping with `all` and `games`"),
    # Every game overrides it, so it would fail only with the next game.
    "overridden by every game": ("all: {heap: 3}", "all.heap must be a mapping, not a whole number"),
}


def refused(text: str, folder: Path) -> str:
    path = folder / "server-values.yaml"
    path.write_text(text)
    with pytest.raises(StartupError) as raised:
        operator_values.load(path, GAMES, CHART)
    for message in str(raised.value).split("; " + str(path)):
        assert message.removeprefix(str(path)).startswith(":")
    return str(raised.value)


def loaded(text: str, folder: Path) -> Mapping[str, Any]:
    path = folder / "server-values.yaml"
    path.write_text(text)
    return operator_values.load(path, GAMES, CHART)


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_named(case: str, tmp_path: Path) -> None:
    """With file, line and key, and what would be valid."""
    text, message = WRONG[case]
    assert message in refused(text, tmp_path)


def test_all_mistakes_are_named_together_and_once(tmp_path: Path) -> None:
    """An operator can fix them with one rollout."""
    message = refused("all:\n  tagg: x\n  ramGb: 4\ngames:\n  luanti: {diskGB: 1}\n", tmp_path)
    assert [message.count(key) for key in ("all.tagg", "all.ramGb", "games.luanti.diskGB")] == [1, 1, 1]


def test_valid_values_are_loaded_unchanged(tmp_path: Path) -> None:
    """Nothing is added: the defaults are the chart's and the games'."""
    path = tmp_path / "server-values.yaml"
    path.write_text(
        "all: {storage: {className: fast}}\ngames: {minecraft: {rcon: {port: 1}}, luanti: {}, teeworlds: null}\n"
    )
    assert operator_values.load(path, GAMES, CHART) == {
        "all": {"storage": {"className": "fast"}},
        "games": {"minecraft": {"rcon": {"port": 1}}, "luanti": {}, "teeworlds": None},
    }
    assert operator_values.load(None, GAMES, CHART) == {}
    # A game that listens elsewhere leaves RCON's port free, whatever the chart's default for a game's port.
    path.write_text("games: {teeworlds: {rcon: {enabled: true, port: 25565}}}\n")
    operator_values.load(path, GAMES, CHART)


@pytest.mark.parametrize(
    "variables",
    [
        "environment: {STOP_DURATION: '10'}",
        "environment: {STOP_DURATION: '0'}",
        "environment: {STOP_DURATION: ''}",
        "environment: {STOP_DURATION: 1m30}",
        "environment: {STOP_DURATION: '5'}, extraEnv: [{name: STOP_DURATION, value: '60'}]",
        "extraEnv: [{name: STOP_DURATION, value: $(SECONDS)}]",
        "extraEnv: [{name: STOP_DURATION, valueFrom: {secretKeyRef: {name: a, key: b}}}]",
        "environment: {STOP_DURATION: 5s}, stop: {durationVariable: ''}",
    ],
)
def test_a_time_until_the_kill_that_works_is_accepted(variables: str, tmp_path: Path) -> None:
    """0 means that the image never kills the game, and an empty text is the image's default of 60 s."""
    assert loaded(f"games: {{minecraft: {{{variables}}}}}\n", tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        "priorityClassName: a-b.c, runtimeClassName: '0', nodeSelector: {a.b-c.d/E_f: x, g: h}",
        "podLabels: {" + ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]) + "/x: y}",
        "storage: {mountPath: /run/gameserver/econ}",
        "ports: [{name: primary, port: 25565, protocol: both}]",
        "podAnnotations: {container.apparmor.security.beta.kubernetes.io/game: localhost/games, "
        "controller.kubernetes.io/pod-deletion-cost: '-05'}",
        "service: {type: LoadBalancer, annotations: "
        "{service.beta.kubernetes.io/load-balancer-source-ranges: ' 010.0.0.1/8, 2001:db8::/32'}}",
        "service: {type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.0/24], annotations: "
        "{service.beta.kubernetes.io/load-balancer-source-ranges: x}}",
        "sftp: {enabled: false, annotations: {service.beta.kubernetes.io/load-balancer-source-ranges: x}}",
        "extraVolumes: [{name: a, projected: {sources: [{secret: {name: b, items: [{key: c, path: d}]}}, "
        "{serviceAccountToken: {path: d, expirationSeconds: 4294967296}}]}}]",
    ],
)
def test_what_kubernetes_accepts_is_accepted(values: str, tmp_path: Path) -> None:
    """Kubernetes 1.35 says so of each of these (`kubectl apply --dry-run=server`)."""
    assert loaded(f"games: {{minecraft: {{{values}}}}}\n", tmp_path)
