"""`make bench`: one table, measured side by side in one run, into docs/benchmarks.md.

The contenders of a row take turns, in an order that changes with each round, so that a busy moment of the machine
hits all of them.
"""

from __future__ import annotations

import os
import platform
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.contenders import NAMESPACE, ROOT, Bench, bench
from tests.clients import udp_ping

DOCUMENT = ROOT / "docs" / "benchmarks.md"
ROUNDS, LOOKUPS, PINGS, REQUESTS = 10, 300, 4, 1000
LAX = "--disable-openapi-validation"

Times = dict[str, list[float]]
Row = tuple[str, str, str, str, str]


def main() -> None:
    """Measure, print, write."""
    began, load = datetime.now(UTC), os.getloadavg()
    rows: list[Row] = []
    with bench() as there:
        values = there.values()
        operations = _operations(there, values)
        for name, times in operations.items():
            rows += _compared(name, times, "helm", 0.7) + _compared(name, times, f"helm {LAX}", 1.15)
        for count, rounds in ((8, 3), (32, 2)):
            rows.append(_at_once(there, values, count, rounds))
        rows += _reads(there)
        rows += _lists(there)
        rows += _compared("create → the game answers", _to_ping(there, values), "kubectl apply", 1.1)
        rows.append(_memory(there))
    table = _table(rows)
    about = _about(began, load)
    print(f"\n{about}\n\n{table}")
    _write(DOCUMENT, f"{about}\n\n{table}")


# -- the measurements ----------------------------------------------------------------------------------------


def _operations(there: Bench, values: Mapping[str, Any]) -> dict[str, Times]:
    """Create (stopped), start and stop."""
    found: dict[str, Times] = {"create": {}, "start": {}, "stop": {}}
    for _ in _rounds(ROUNDS, "create, start, stop"):
        contenders: dict[str, dict[str, Callable[[], object]]] = {}
        one = there.id(api=True)
        contenders["API"] = {
            "create": lambda one=one: there.api_create(one),
            "start": lambda one=one: there.call("PATCH", f"server/{one}/start"),
            "stop": lambda one=one: there.call("PATCH", f"server/{one}/stop"),
        }
        for name, flags in (("helm", ()), (f"helm {LAX}", (LAX,))):
            id = there.id(api=False)
            contenders[name] = {
                "create": lambda id=id, flags=flags: there.helm(id, {**values, "replicas": 0}, *flags),
                "start": lambda id=id, flags=flags: there.helm(id, {**values, "replicas": 1}, *flags),
                "stop": lambda id=id, flags=flags: there.helm(id, {**values, "replicas": 0}, *flags),
            }
        for operation, times in found.items():
            for name in _shuffled(contenders):
                times.setdefault(name, []).append(_timed(contenders[name][operation]))
    return found


def _at_once(there: Bench, values: Mapping[str, Any], count: int, rounds: int) -> Row:
    """Creates per second, all sent at the same moment."""
    speeds: Times = {"API": [], "helm": []}
    for _ in _rounds(rounds, f"{count} creates at once"):
        for name in _shuffled(speeds):
            ids = [there.id(api=name == "API") for _ in range(count)]
            create: Callable[[int], None] = (
                there.api_create if name == "API" else lambda id: there.helm(id, {**values, "replicas": 0})
            )
            with ThreadPoolExecutor(count) as pool:
                took = _timed(lambda ids=ids, create=create, pool=pool: list(pool.map(create, ids)))
            speeds[name].append(count / took)
    ours, theirs = statistics.median(speeds["API"]), statistics.median(speeds["helm"])
    return (
        f"{count} creates at once",
        f"{ours:.2f} a second",
        f"helm: {theirs:.2f} a second",
        f"{ours / theirs:.2f} ×",
        _verdict(ours / theirs >= 1.5, "at least 1.5 ×"),
    )


def _reads(there: Bench) -> list[Row]:
    """Port lookup and status, one after the other on a kept connection, against one GET of a Service."""
    id = next(iter(there.by_api))
    url = f"{there.environment['API_URL']}/api/v1/server/{id}"
    readers: dict[str, Callable[[], object]] = {
        "port lookup": lambda: there.pool.request("PATCH", f"{url}/port/primary"),
        "status": lambda: there.pool.request("GET", f"{url}/"),
        "GET of a Service": lambda: there.core.read_namespaced_service(f"server-{id}", NAMESPACE),
    }
    times: Times = {}
    for _ in _rounds(LOOKUPS, "port lookup, status"):
        for name in _shuffled(readers):
            times.setdefault(name, []).append(_timed(readers[name]))
    theirs = times.pop("GET of a Service")
    rows = []
    for name, ours in sorted(times.items()):
        ratio, slowest = _p(ours, 50) / _p(theirs, 50), _p(ours, 99)
        goal = _verdict(ratio <= 1.5 and slowest < 0.02, "at most 1.5 ×, p99 under 20 ms")
        mine, other = (f"{_milliseconds(some)}, p99 {_p(some, 99) * 1000:.1f}" for some in (ours, theirs))
        rows.append((name, mine, f"GET of a Service: {other}", f"{ratio:.2f} ×", goal))
    return rows


def _lists(there: Bench) -> list[Row]:
    """Pages of 10 and of all servers that there are by now."""
    total = len(there.call("GET", "server?limit=500")["servers"])
    rows = []
    times: Times = {}
    for _ in _rounds(30, "lists"):
        for size in (10, total):
            call = lambda size=size: there.call("GET", f"server?limit={size}")  # noqa: E731
            times.setdefault(str(size), []).append(_timed(call))
    for size, each in times.items():
        share = _p(each, 50) / int(size) * 1000
        goal = "under 50 ms for 300: not measured with so many"
        rows.append((f"list of {size} servers", _milliseconds(each), "", f"{share:.2f} ms a server", goal))
    return rows


def _to_ping(there: Bench, values: Mapping[str, Any]) -> Times:
    """Until the game answers over UDP."""
    times: Times = {"API": [], "kubectl apply": []}
    for _ in _rounds(PINGS, "create → the game answers"):
        for name in _shuffled(times):
            id = there.id(api=name == "API")
            manifests = "" if name == "API" else there.manifests(id, {**values, "replicas": 1})

            def create(name: str = name, id: int = id, manifests: str = manifests) -> None:
                if name == "API":
                    there.api_create(id, start=True)
                    port = there.call("PATCH", f"server/{id}/port/primary")["port"]
                else:
                    there.run("kubectl", "-n", NAMESPACE, "apply", "-f", "-", stdin=manifests)
                    port = there.node_port(id)
                assert port, id
                udp_ping.teeworlds(there.node, port, timeout=90)

            times[name].append(_timed(create))
            if name == "API":
                there.call("PATCH", f"server/{id}/stop")
            else:
                there.run("kubectl", "-n", NAMESPACE, "delete", "statefulset", f"server-{id}")
    return times


def _memory(there: Bench) -> Row:
    """The API's Python after each replica has answered 1,000 requests at least."""
    served = "gameserver_api_request_duration_seconds_count"
    url = f"{there.environment['API_URL']}/api/v1/server/{next(iter(there.by_api))}/"
    while True:
        found = {pod: there.metrics(pod) for pod in there.replicas()}
        least = min(sum(value for name, value in each.items() if name.startswith(served)) for each in found.values())
        if least >= REQUESTS:
            break
        for _ in range(100):
            # A connection of its own, as a node port chooses a replica by connection.
            there.pool.request("GET", url, headers={**there.pool.headers, "Connection": "close"})
    most = max(each["process_resident_memory_bytes"] for each in found.values()) / 2**20
    return (
        "memory of a replica's Python",
        f"{most:.0f} MiB after {least:.0f} requests",
        "",
        "",
        _verdict(most < 150, "under 150 MiB"),
    )


# -- small things -------------------------------------------------------------------------------------------


def _rounds(count: int, name: str) -> range:
    print(f"{name}: {count} rounds", file=sys.stderr, flush=True)
    return range(count)


def _shuffled(names: Mapping[str, object]) -> list[str]:
    return random.sample(list(names), len(names))


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _p(times: Sequence[float], percent: int) -> float:
    """The nearest rank's percentile."""
    return sorted(times)[max(0, -(-len(times) * percent // 100) - 1)]


def _seconds(times: Sequence[float]) -> str:
    return f"{_p(times, 50):.2f} s, {_p(times, 95):.2f} s"


def _milliseconds(times: Sequence[float]) -> str:
    return f"{_p(times, 50) * 1000:.1f} ms, {_p(times, 95) * 1000:.1f} ms"


def _verdict(met: bool, goal: str) -> str:
    return f"{goal}: {'met' if met else '**missed**'}"


def _compared(name: str, times: Times, other: str, goal: float) -> list[Row]:
    ratio = _p(times["API"], 50) / _p(times[other], 50)
    verdict = _verdict(ratio <= goal, f"at most {goal} ×")
    return [(name, _seconds(times["API"]), f"{other}: {_seconds(times[other])}", f"{ratio:.2f} ×", verdict)]


def _table(rows: Sequence[Row]) -> str:
    head = ("measured", "API (p50, p95)", "against (p50, p95)", "ratio of p50", "goal")
    lines = [head, ("---",) * 5, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _about(began: datetime, load: Sequence[float]) -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{began:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} × {model[1] if model else platform.machine()}, "
        f"{memory:.0f} GiB, Linux {platform.release()}; "
        f"load {load[0]:.1f} when it began, {os.getloadavg()[0]:.1f} when it ended.\n"
        f"{ROUNDS} rounds of create, start, stop; {LOOKUPS} of the look-ups; {PINGS} of create → answer."
    )


def _write(document: Path, text: str) -> None:
    """Put the text between the document's marks."""
    marks = r"(<!-- measured -->\n).*(\n<!-- /measured -->)"
    whole = document.read_text()
    document.write_text(re.sub(marks, lambda found: f"{found[1]}\n{text}\n{found[2]}", whole, flags=re.DOTALL))


if __name__ == "__main__":
    main()
