"""Looks at servers one after the other, as a program of its own, and prints how long each look took, in ms, as JSON.

`python -m tests.support.lookups URL SECONDS ID...` with the token in the environment variable TOKEN.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from urllib.parse import urlsplit


def main(url: str, seconds: float, *ids: str) -> None:
    """Look for so many seconds, about forty times in each."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    took, ends, number = [], time.monotonic() + float(seconds), 0
    while time.monotonic() < ends:
        began = time.monotonic()
        connection.request("GET", f"/api/v1/server/{ids[number % len(ids)]}/", headers=headers)
        answer = connection.getresponse()
        answer.read()
        # While a machine is overloaded, Kubernetes does not answer in time, whoever follows a log.
        if answer.status not in (200, 503):
            sys.exit(f"{answer.status}")
        if answer.status == 200:
            took.append((time.monotonic() - began) * 1000)
        number += 1
        time.sleep(0.025)
    print(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), *sys.argv[3:])
