"""`make bench-scale`: the times of each call at 10, 100, 500, 1,000 and 2,000 servers, for docs/scale.md."""

from __future__ import annotations

import argparse
import random
import signal
import time
from functools import partial
from types import FrameType
from typing import Any

import urllib3

from local.paths import ROOT
from tests.scale import cpu
from tests.scale.simulation import BODY, Simulation, at_once, say, simulation
from tests.support import report
from tests.support.report import timed
from tests.support.shop import Shop

DOCUMENT = ROOT / "docs" / "scale.md"
SIZES = (10, 100, 500, 1000, 2000)
#: How often each call is made at each size. The last WRITES servers of a size are created and started one by one.
WRITES, READS, LISTS = 20, 200, 10
#: How many seconds the cluster is watched at rest, to know what it uses without any call.
REST = 20
#: Concurrent creates while filling up to the next size: enough to keep both replicas' helm processes busy, with few
#: refusals.
WORKERS = 8
HEAD = ("servers", "filled up", "create", "start", "port lookup", "status", "list of all", "page of 100")
HEAD_OF_CPU = ("servers", *cpu.COLUMNS, "together")
HEAD_OF_COSTS = ("servers", "a replica's Python", "all objects in etcd", "etcd's file")


class LargeShop(Shop):
    """A web shop with thousands of servers."""

    def until_open(self) -> None:
        """Wait until the nodes know the API's Service."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.call("GET", "game")
                return
            except urllib3.exceptions.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def create(self, id: int, *, start: bool = True) -> None:
        """Create a server."""
        self.call("POST", f"server/{id}/", {**BODY, "start": start})

    def all(self) -> list[dict[str, Any]]:
        """All servers, listed with the largest pages."""
        page = self.call("GET", "server/?limit=500")
        servers: list[dict[str, Any]] = page["servers"]
        while page["continue"]:
            page = self.call("GET", f"server/?limit=500&continue={page['continue']}")
            servers += page["servers"]
        return servers


def main() -> None:
    """Measure, print the tables, and write them to the document."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="other sizes; then nothing is written")
    sizes = tuple(int(size) for size in parser.parse_args().sizes.split(","))
    # Treated like Ctrl-C, so that everything is deleted.
    signal.signal(signal.SIGTERM, _interrupted)
    machine, started = report.machine(), time.monotonic()
    calls, writes, rests, costs = [], [], [], []
    with simulation(sizes[-1]) as simulated:
        shop = LargeShop(simulated.url, simulated.token, WORKERS)
        shop.until_open()
        first = 0
        for size in sizes:
            row, write, rest = _measured(simulated, shop, first, size)
            calls.append(row)
            writes.append(_in_columns(size, write))
            rests.append(_in_columns(size, rest))
            if size == sizes[-1]:
                # The API server measures etcd once a minute.
                time.sleep(65)
            objects, file = simulated.etcd()
            costs.append((f"{size:,}", f"{simulated.memory():.0f} MiB", f"{objects:.1f} MiB", f"{file:.0f} MiB"))
            first = size
        took = (time.monotonic() - started) / 60
        text = "\n\n".join(
            (
                f"{machine}. It took {took:.0f} minutes.",
                report.table(HEAD, calls, "---:"),
                "CPU time for a create and a start together, in milliseconds, beyond what is used at rest:",
                report.table(HEAD_OF_CPU, writes, "---:"),
                "CPU time at rest, in milliseconds per second:",
                report.table(HEAD_OF_CPU, rests, "---:"),
                report.table(HEAD_OF_COSTS, costs, "---:"),
            )
        )
        # Print before the cleanup, which takes minutes and may fail.
        print(f"\n{text}\n", flush=True)
        if sizes == SIZES:
            report.write(DOCUMENT, text)


def _measured(
    simulated: Simulation, shop: LargeShop, first: int, size: int
) -> tuple[tuple[str, ...], cpu.Seconds, cpu.Seconds]:
    """Fill up from `first` servers to `size`, and measure each call.

    Returns the table's row, the CPU seconds of a create and a start together, and those of each second at rest.
    """
    ids = range(first + 1, size + 1)
    simulated.volumes(ids)
    bulk, single = ids[:-WRITES], ids[-WRITES:]
    say(f"{size} servers: {len(bulk)} creates, {WORKERS} at once")
    filling = timed(lambda: at_once(WORKERS, shop.create, bulk))
    _until_running(shop, first + len(bulk))
    time.sleep(REST)
    resting = cpu.at_rest(REST)
    say(f"{size} servers: the last {len(single)} one by one")
    before, began = cpu.used(), time.monotonic()
    creates = [timed(partial(shop.create, id, start=False)) for id in single]
    starts = [timed(partial(shop.call, "PATCH", f"server/{id}/start")) for id in single]
    written = cpu.of_each(before, time.monotonic() - began, resting, len(single))
    _until_running(shop, size)
    say(f"{size} servers: reads")
    some = random.choices(range(1, size + 1), k=READS)
    lookups = [timed(partial(shop.call, "PATCH", f"server/{id}/port/primary")) for id in some]
    statuses = [timed(partial(shop.call, "GET", f"server/{id}/")) for id in some]
    lists = [timed(shop.all) for _ in range(LISTS)]
    pages = [timed(lambda: shop.call("GET", "server/?limit=100")) for _ in range(LISTS)]
    row = (
        f"{size:,}",
        f"{len(bulk) / filling:.1f} per second" if bulk else "",
        *(report.seconds(times) for times in (creates, starts)),
        *(report.milliseconds(times) for times in (lookups, statuses)),
        *(report.milliseconds(times, 0) for times in (lists, pages)),
    )
    return row, written, resting


def _in_columns(size: int, seconds: cpu.Seconds) -> tuple[str, ...]:
    each = [seconds[name] * 1000 for name in cpu.COLUMNS]
    return (f"{size:,}", *(f"{number:.0f}" for number in (*each, sum(each))))


def _until_running(shop: LargeShop, size: int) -> None:
    """Wait until the list has `size` servers, all running, so that Kubernetes is idle during the reads."""
    deadline = time.monotonic() + 300
    while True:
        states = [server["state"] for server in shop.all()]
        if len(states) == size and set(states) <= {"running"}:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"not all of {size} servers run: { {state: states.count(state) for state in states} }")
        time.sleep(2)


def _interrupted(signal_: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
