"""What helm-daemon leaves in Kubernetes is what helm leaves, and it asks for less."""

from __future__ import annotations

import asyncio
import base64
import difflib
import gzip
import json
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyhelm3 import errors as helm_errors

from local.paths import ROOT
from service.helm import command
from service.helm.daemon import Daemon
from service.helm.trial import Trial
from service.kube.client import Kube, path
from service.settings import Settings
from tests.contract.conftest import VALUES
from tests.support.proxy import Proxy

pytestmark = pytest.mark.cluster

HELM, DAEMON = str(ROOT / ".local/bin/helm"), str(ROOT / ".local/bin/helm-daemon")
RELEASE = "server-7"
KINDS = (
    *(("v1", "secrets"), ("v1", "services"), ("v1", "persistentvolumeclaims"), ("apps/v1", "statefulsets")),
    ("networking.k8s.io/v1", "networkpolicies"),
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
#: What Kubernetes or the chart chooses, where the release's own objects have it.
_CHOSEN = re.compile(
    r'"?(nodePort|healthCheckNodePort|clusterIPs?|createdAt|modifiedAt)"?: ("?[0-9.]+"?|\["[0-9.]+"\])'
)


def with_values(**changes: Any) -> dict[str, Any]:
    """Values of a server whose pod no node takes: other hands than Helm's would change more."""
    return {**VALUES, "nodeSelector": {"no-such-node": "here"}, **changes}


@dataclass(frozen=True)
class Step:
    """One write. `before` is what another does to the namespace first."""

    values: Mapping[str, Any] | None
    before: Callable[[Kube, str], None] = field(default=lambda kube, namespace: None)


def taken(kube: Kube, namespace: str) -> None:
    """A Service with the name of one of the release's is in the way."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{RELEASE}-sftp"},
        "spec": {"ports": [{"port": 1}]},
    }
    kube.create(path("v1", namespace, "services"), service)


def free(kube: Kube, namespace: str) -> None:
    kube.delete(path("v1", namespace, "services", f"{RELEASE}-sftp"))


def scaled(kube: Kube, namespace: str) -> None:
    """Somebody else owns the number of replicas, so Helm's apply is refused."""
    kube.merge(path("apps/v1", namespace, "statefulsets", RELEASE), {"spec": {"replicas": 3}})


def scaled_back(kube: Kube, namespace: str) -> None:
    kube.delete(path("apps/v1", namespace, "statefulsets", RELEASE))


def lost(kube: Kube, namespace: str) -> None:
    """Somebody deletes one of the release's objects."""
    kube.delete(path("v1", namespace, "services", RELEASE))


STEPS = [
    Step(with_values(), taken),
    Step(with_values(), free),
    Step(with_values(replicas=1)),
    Step(with_values()),
    Step(with_values(ramGb=2, server={"customer": "ada", "options": {"motd": "😀 {{ .Values }} 'x' 1e400"}})),
    Step(with_values(ramGb="two")),
    Step(with_values(ramGb=3), scaled),
    Step(with_values(ramGb=3), scaled_back),
    Step(with_values(ramGb=4), lost),
    Step({"replicas": 0}),
    Step(None),
    Step(None),
    Step(with_values()),
]


@dataclass
class Way:
    """A way to write, its namespace, and what it has left there after each step."""

    client: Any
    namespace: str
    kube: Kube = field(default_factory=Kube)

    async def take(self, step: Step) -> list[Any]:
        """Take a step: how it ended, and all that is in the namespace then."""
        await asyncio.to_thread(step.before, self.kube, self.namespace)
        try:
            if step.values is None:
                ended = str(await self.client.uninstall_release(RELEASE, namespace=self.namespace))
            else:
                chart = command.chart(self.client, Settings().chart_path)
                revision = await self.client.install_or_upgrade_release(
                    *(RELEASE, chart, dict(step.values)),
                    namespace=self.namespace,
                    create_namespace=False,
                    reset_values=True,
                )
                ended = f"{revision.release.name} {revision.revision} {revision.status}"
        except helm_errors.Error as error:
            ended = f"{type(error).__name__} {error.returncode} {error.stderr.decode()}"
        return [ended, *await asyncio.to_thread(self.left)]

    def left(self) -> list[Any]:
        """All objects, as they are but for times, names of the namespace and what is chosen at random."""
        objects = []
        for group, kind in KINDS:
            for found in self.kube.all(path(group, self.namespace, kind)):
                for chosen in ("uid", "resourceVersion"):
                    del found["metadata"][chosen]
                # What controllers write comes when it comes.
                found.pop("status", None)
                managers = found["metadata"]["managedFields"]
                found["metadata"]["managedFields"] = [one for one in managers if one["manager"].lower() == "helm"]
                if found.get("type") == "helm.sh/release.v1":
                    packed = base64.b64decode(base64.b64decode(found["data"]["release"]))
                    found["data"] = json.loads(gzip.decompress(packed))
                objects.append(found)
        text = json.dumps(objects, sort_keys=True, ensure_ascii=False)
        for password in self.passwords(objects):
            text = text.replace(password, "PASSWORD")
        text = _CHOSEN.sub(r'"\1": "CHOSEN"', _TIME.sub("TIME", text.replace(self.namespace, "NAMESPACE")))
        return list(json.loads(text))

    @staticmethod
    def passwords(objects: list[dict[str, Any]]) -> Iterator[str]:
        for found in objects:
            for value in (found.get("data") or {}).values() if found.get("type") == "Opaque" else ():
                yield value
                yield base64.b64decode(value).decode()


def pretty(left: list[Any]) -> list[str]:
    """The lines to compare."""
    return json.dumps(left, indent=1, sort_keys=True, ensure_ascii=False).splitlines()


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two namespaces, whose names are equally long."""
    kube, names = Kube(), (f"daemon-{secrets.token_hex(4)}", f"daemon-{secrets.token_hex(4)}")
    for name in names:
        kube.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield names
    for name in names:
        kube.delete(f"/api/v1/namespaces/{name}")


@asynccontextmanager
async def kept(environment: Mapping[str, str]) -> AsyncIterator[Daemon]:
    """The daemon, while it runs."""
    daemon = Daemon([*command.dying_with_us(), DAEMON], environment, command.GRACE_SECONDS)
    keeping = asyncio.ensure_future(daemon.keep())
    try:
        async with asyncio.timeout(30):
            while not daemon.runs:
                await asyncio.sleep(0.01)
        yield daemon
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


def test_helm_and_the_daemon_leave_the_same(namespaces: tuple[str, str]) -> None:
    """Each step ends in the same way, with the same message, and leaves the same records and objects.

    Compared are all fields, with those that manage them; only times and what is chosen at random differ.
    """

    async def compared() -> None:
        async with kept(command.environment(os.environ)) as daemon:
            plain = Way(command.client(HELM, None, Trial(Kube(), namespaces[0])), namespaces[0])
            ours = Way(command.client(HELM, daemon), namespaces[1])
            for number, step in enumerate(STEPS, 1):
                expected, found = await asyncio.gather(plain.take(step), ours.take(step))
                found[0], expected[0] = (
                    text.replace(way.namespace, "N") for text, way in ((found[0], ours), (expected[0], plain))
                )
                lines = difflib.unified_diff(pretty(expected), pretty(found), "helm", "daemon", lineterm="", n=4)
                different = "\n".join(line[:300] for line in lines)
                assert not different, f"after step {number}:\n{different[:5000]}"

    asyncio.run(compared())


def test_the_daemon_asks_for_less(namespaces: tuple[str, str], kubeconfig: str, tmp_path: Path) -> None:
    """Neither Kubernetes' version nor its kinds are asked for again, and the release's records once."""

    async def counted(proxy: Proxy, daemon: Daemon | None) -> list[list[str]]:
        way = Way(command.client(HELM, daemon), namespaces[1 if daemon else 0])
        # As in a replica, which has been at work before.
        await way.take(Step(with_values()))
        await way.take(Step(None))
        requests = []
        for step in (Step(with_values(ramGb=2)), Step(with_values(replicas=1)), Step(with_values()), Step(None)):
            proxy.hold(0)
            await way.take(step)
            requests.append([line.replace(way.namespace, "N") for line in proxy.requests])
        return requests

    async def both(proxy: Proxy) -> tuple[list[list[str]], list[list[str]]]:
        async with kept(command.environment(os.environ)) as daemon:
            return await counted(proxy, daemon), await counted(proxy, None)

    proxy = Proxy(kubeconfig)
    with proxy.running(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", proxy.kubeconfig(tmp_path))
        ours, plain = asyncio.run(both(proxy))
    print([len(one) for one in ours], [len(one) for one in plain])
    print("\n".join("\n".join(one) + "\n" for one in ours))
    for one in ours:
        assert not [line for line in one if "/namespaces/N/" not in line]
        assert len([line for line in one if "secrets?labelSelector=" in line]) == 1
