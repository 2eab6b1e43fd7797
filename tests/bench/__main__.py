"""`make bench`: one table, measured side by side in one run, for docs/benchmarks.md.

The contenders of a row take turns in an order that changes with each round, so that a busy moment of the machine
affects all of them.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from local.paths import ROOT
from tests.bench import disks, files
from tests.bench.contenders import NAMESPACE, Bench, prepared
from tests.clients import udp_ping
from tests.support import report
from tests.support.report import percentile

DOCUMENT = ROOT / "docs" / "benchmarks.md"
HEAD = ("measured", "API (p50, p95)", "against (p50, p95)", "ratio of p50", "goal")
ROUNDS, LOOKUPS, PINGS, REQUESTS = 10, 300, 6, 1000
LISTED = (10, 100, 300)
LAX = "--disable-openapi-validation"
AT_ONCE = {"helm": 2.2, f"helm {LAX}": 1.4}
#: How many servers the CPU time is measured with, and how many of them at once.
OPERATIONS, WORKERS = 40, 4
#: The memory of an idle replica that has no helm-daemon, in MiB.
IDLE_BEFORE = 80

Times = dict[str, list[float]]
Row = tuple[str, str, str, str, str]


def main() -> None:
    """Measure, print the table, and write it to the document."""
    machine = report.machine()
    rows: list[Row] = []
    with prepared() as bench:
        values = bench.values()
        operations = _operations(bench, values)
        for name, times in operations.items():
            rows += _compared(name, times, "helm", 0.4) + _compared(name, times, f"helm {LAX}", 0.7)
        for count, rounds in ((8, 3), (32, 3)):
            rows += _at_once(bench, values, count, rounds)
        rows += _use(bench)
        rows += _reads(bench)
        rows += _lists(bench)
        rows += _compared("create → the game answers", _to_ping(bench, values), "kubectl apply", 1.1)
        rows.append(_memory(bench))
    rows += files.rows() + disks.rows()
    text = (
        f"{machine}, {os.getloadavg()[0]:.1f} at the end.\n"
        f"{ROUNDS} rounds of create, start and stop; {LOOKUPS} of each look-up; {PINGS} of create → answer.\n\n"
        f"{report.table(HEAD, rows)}"
    )
    print(f"\n{text}")
    report.write(DOCUMENT, text)


# -- the measurements ----------------------------------------------------------------------------------------


def _operations(bench: Bench, values: Mapping[str, Any]) -> dict[str, Times]:
    """The times of create (stopped), start and stop."""
    measured: dict[str, Times] = {"create": {}, "start": {}, "stop": {}}
    for _ in _rounds(ROUNDS, "create, start, stop"):
        contenders: dict[str, dict[str, Callable[[], object]]] = {}
        id = bench.id(api=True)
        contenders["API"] = {
            "create": partial(bench.api_create, id),
            "start": partial(bench.call, "PATCH", f"server/{id}/start"),
            "stop": partial(bench.call, "PATCH", f"server/{id}/stop"),
        }
        for name, flags in (("helm", ()), (f"helm {LAX}", (LAX,))):
            id = bench.id(api=False)
            contenders[name] = {
                "create": partial(bench.helm, id, {**values, "replicas": 0}, *flags),
                "start": partial(bench.helm, id, {**values, "replicas": 1}, *flags),
                "stop": partial(bench.helm, id, {**values, "replicas": 0}, *flags),
            }
        for operation, times in measured.items():
            for name in _shuffled(contenders):
                times.setdefault(name, []).append(report.timed(contenders[name][operation]))
    return measured


def _at_once(bench: Bench, values: Mapping[str, Any], count: int, rounds: int) -> list[Row]:
    """Creates per second when all are sent at the same moment."""
    stopped = {**values, "replicas": 0}
    contenders: dict[str, Callable[[int], None]] = {
        "API": bench.api_create,
        "helm": lambda id: bench.helm(id, stopped),
        f"helm {LAX}": lambda id: bench.helm(id, stopped, LAX),
    }
    speeds: Times = {name: [] for name in contenders}
    for _ in _rounds(rounds, f"{count} creates at once"):
        for name in _shuffled(speeds):
            ids, create = [bench.id(api=name == "API") for _ in range(count)], contenders[name]
            with ThreadPoolExecutor(count) as pool:
                took = report.timed(partial(_all_done, pool, create, ids))
            speeds[name].append(count / took)
    medians = {name: statistics.median(speed) for name, speed in speeds.items()}
    ours = medians.pop("API")
    return [
        (
            f"{count} creates at once",
            f"{ours:.2f} per second",
            f"{name}: {theirs:.2f} per second",
            f"{ours / theirs:.2f} ×",
            _verdict(ours / theirs >= AT_ONCE[name], f"at least {AT_ONCE[name]} ×"),
        )
        for name, theirs in medians.items()
    ]


def _use(bench: Bench) -> list[Row]:
    """The replicas' CPU time for each operation, beyond what they use when idle, and their memory."""
    print(f"CPU: {OPERATIONS} creates, starts and stops, {WORKERS} at once", file=sys.stderr, flush=True)
    began, (idle, _) = time.monotonic(), bench.used()
    time.sleep(30)
    before, _ = bench.used()
    at_rest = (before - idle) / (time.monotonic() - began)
    began = time.monotonic()
    ids = [bench.id(api=True) for _ in range(OPERATIONS)]

    def operate(id: int) -> None:
        bench.api_create(id)
        bench.call("PATCH", f"server/{id}/start")
        bench.call("PATCH", f"server/{id}/stop")

    with ThreadPoolExecutor(WORKERS) as pool:
        _all_done(pool, operate, ids)
    after, memory = bench.used()
    share = (after - before - at_rest * (time.monotonic() - began)) / (3 * OPERATIONS)
    return [
        ("CPU time of an operation", f"{share:.3f} s", "", "", _verdict(share <= 0.05, "at most 0.05 s")),
        (
            "memory of a replica, with helm-daemon",
            f"{memory:.0f} MiB after {3 * OPERATIONS} operations",
            "",
            "",
            _verdict(memory <= IDLE_BEFORE + 120, f"at most 120 MiB above the {IDLE_BEFORE} MiB of one without it"),
        ),
    ]


def _reads(bench: Bench) -> list[Row]:
    """Port lookup and status of a running server on a kept connection, compared with one GET of its Service."""
    id = bench.id(api=True)
    bench.api_create(id, start=True)
    while bench.call("GET", f"server/{id}/")["state"] != "running":
        time.sleep(0.5)
    url = f"{bench.shop.url}/server/{id}"
    readers: dict[str, Callable[[], object]] = {
        "port lookup": lambda: bench.shop.pool.request("PATCH", f"{url}/port/primary"),
        "status": lambda: bench.shop.pool.request("GET", f"{url}/"),
        "GET of a Service": lambda: bench.core.read_namespaced_service(f"server-{id}", NAMESPACE),
    }
    times: Times = {}
    for _ in _rounds(LOOKUPS, "port lookup, status"):
        for name in _shuffled(readers):
            times.setdefault(name, []).append(report.timed(readers[name]))
    theirs = times.pop("GET of a Service")
    rows = []
    for name, ours in sorted(times.items()):
        ratio, slowest = percentile(ours, 50) / percentile(theirs, 50), percentile(ours, 99)
        goal = _verdict(ratio <= 1.5 and slowest < 0.02, "at most 1.5 ×, p99 under 20 ms")
        mine, other = (f"{report.milliseconds(some)}, p99 {percentile(some, 99) * 1000:.1f}" for some in (ours, theirs))
        rows.append((name, mine, f"GET of a Service: {other}", f"{ratio:.2f} ×", goal))
    return rows


def _lists(bench: Bench) -> list[Row]:
    """Pages of the sizes in LISTED, with real servers that the API creates."""
    missing = max(LISTED) - len(bench.call("GET", f"server?limit={max(LISTED)}")["servers"])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bench.api_create, [bench.id(api=True) for _ in range(missing)]))
    times: dict[int, list[float]] = {}
    for _ in _rounds(50, "lists"):
        for size in LISTED:
            call = partial(bench.call, "GET", f"server?limit={size}")
            times.setdefault(size, []).append(report.timed(call))
    shares = {size: percentile(each, 50) / size * 1000 for size, each in times.items()}
    goals = dict.fromkeys(times, "")
    goals[100] = _verdict(shares[100] <= shares[10], "no more per server than a list of 10")
    met = percentile(times[300], 50) < 0.05 and shares[300] <= shares[100]
    goals[300] = _verdict(met, "under 50 ms, and no more per server than a list of 100")
    return [
        (f"list of {size} servers", report.milliseconds(each), "", f"{shares[size]:.2f} ms per server", goals[size])
        for size, each in times.items()
    ]


def _to_ping(bench: Bench, values: Mapping[str, Any]) -> Times:
    """The times from the create until the game answers over UDP."""
    times: Times = {"API": [], "kubectl apply": []}
    for _ in _rounds(PINGS, "create → the game answers"):
        for name in _shuffled(times):
            id = bench.id(api=name == "API")
            manifests = "" if name == "API" else bench.manifests(id, {**values, "replicas": 1})

            def create(name: str = name, id: int = id, manifests: str = manifests) -> None:
                if name == "API":
                    bench.api_create(id, start=True)
                    port = bench.call("PATCH", f"server/{id}/port/primary")["port"]
                else:
                    bench.run("kubectl", "-n", NAMESPACE, "apply", "-f", "-", stdin=manifests)
                    port = bench.node_port(id)
                assert port, id
                _ping(bench, id, port)

            times[name].append(report.timed(create))
            if name == "API":
                bench.call("PATCH", f"server/{id}/stop")
            else:
                bench.run("kubectl", "-n", NAMESPACE, "delete", "statefulset", f"server-{id}")
    return times


def _ping(bench: Bench, id: int, port: int) -> None:
    """Wait until the game answers at its node, with a ping every few tenths of a second."""
    deadline = time.monotonic() + 90
    while True:
        try:
            if host := bench.node_of(id):
                udp_ping.teeworlds(host, port, timeout=0.1)
                return
            time.sleep(0.1)
        except udp_ping.NoAnswer:
            if time.monotonic() > deadline:
                raise


def _memory(bench: Bench) -> Row:
    """The memory of the API's Python after each replica has answered at least REQUESTS requests."""
    served = "gameserver_api_request_duration_seconds_count"
    url = f"{bench.shop.url}/server/{next(iter(bench.by_api))}/"
    while True:
        metrics = {pod: bench.metrics(pod) for pod in bench.replicas()}
        least = min(sum(value for name, value in each.items() if name.startswith(served)) for each in metrics.values())
        if least >= REQUESTS:
            break
        for _ in range(100):
            # A new connection each time, because a node port chooses the replica by connection.
            bench.shop.pool.request("GET", url, headers={**bench.shop.pool.headers, "Connection": "close"})
    most = max(each["process_resident_memory_bytes"] for each in metrics.values()) / 2**20
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


def _all_done(pool: ThreadPoolExecutor, work: Callable[[int], None], ids: list[int]) -> None:
    list(pool.map(work, ids))


def _shuffled(names: Mapping[str, object]) -> list[str]:
    return random.sample(list(names), len(names))


def _verdict(met: bool, goal: str) -> str:
    return f"{goal}: {'met' if met else '**missed**'}"


def _compared(name: str, times: Times, other: str, goal: float) -> list[Row]:
    ratio = percentile(times["API"], 50) / percentile(times[other], 50)
    verdict = _verdict(ratio <= goal, f"at most {goal} ×")
    return [(name, report.seconds(times["API"]), f"{other}: {report.seconds(times[other])}", f"{ratio:.2f} ×", verdict)]


if __name__ == "__main__":
    main()
