"""A real cluster in which all node ports but a few are taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ClusterUnavailable
from service.kube.client import Kube, path

#: The ports of one Service. The API server takes about half a second to allocate this many.
MANY = 256


@contextmanager
def all_taken_but(kube: Kube, namespace: str, free: int) -> Iterator[None]:
    """Leave `free` node ports in the cluster while the `with` lasts. Services in `namespace` take all others."""
    services: list[str] = []

    def take(count: int) -> bool:
        name = f"taken-{len(services)}"
        ports = [{"name": f"p{number}", "port": number} for number in range(1, count + 1)]
        service = {"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": ports}}
        try:
            kube.create(path("v1", namespace, "services"), service)
        except ClusterUnavailable:
            # The API server answers 500, "failed to allocate a nodePort: range is full".
            return False
        services.append(name)
        return True

    def give_back(name: str) -> None:
        kube.delete(path("v1", namespace, "services", name))

    try:
        for _ in range(free):
            assert take(1)
        count = MANY
        while count:
            if not take(count):
                count //= 2
        for name in services[:free]:
            give_back(name)
        yield
    finally:
        for name in services:
            give_back(name)
