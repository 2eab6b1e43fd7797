"""The two helm commands that there are, run in a slot of the pool and under a Lease, their failures translated."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from pyhelm3 import errors as helm_errors

from service.errors import OperationFailed, Problem
from service.helm import command
from service.helm.pool import HelmPool, Work
from service.kube.leases import Lease
from service.servers.values import Values
from service.settings import Settings

log = logging.getLogger(__name__)

Done = Callable[[str, str, float], None]


class HelmClient:
    """Writes releases of the gameserver chart. To be made after a fork.

    `done(kind, outcome, seconds)` is told about each helm process; the outcome is success or a problem's slug.
    """

    def __init__(self, settings: Settings, done: Done) -> None:
        self._namespace = settings.servers_namespace
        self._client = command.client(settings.helm)
        self._chart = command.chart(self._client, settings.chart_path)
        self._pool = HelmPool(settings.helm_processes or 2 * (os.cpu_count() or 1))
        self._done = done

    def upgrade(self, kind: str, release: str, values: Values, lease: Lease) -> None:
        """Bring the release to exactly these values, installing it where it is not there yet."""
        self._run(
            kind,
            release,
            lease,
            lambda: self._client.install_or_upgrade_release(
                release,
                self._chart,
                values,
                namespace=self._namespace,
                create_namespace=False,
                # Without it, helm takes empty values for "the values of before".
                reset_values=True,
            ),
        )

    def uninstall(self, release: str, lease: Lease) -> None:
        """Uninstall the release, without waiting for its pod to end."""
        work: Work = lambda: self._client.uninstall_release(release, namespace=self._namespace)  # noqa: E731
        self._run("uninstall", release, lease, work)

    def _run(self, kind: str, release: str, lease: Lease, work: Work) -> None:
        began, outcome = time.monotonic(), "success"
        try:
            self._pool.run(lease, work)
        except helm_errors.Error as error:
            problem = command.problem(error)
            outcome = problem.slug
            message = error.stderr[-2000:].decode(errors="replace").strip()
            log.error("helm %s of %s failed (%s): %s", kind, release, outcome, message)
            raise problem from error
        except Problem as problem:
            outcome = problem.slug
            raise
        except (OSError, ValueError) as error:
            outcome = OperationFailed.slug
            raise OperationFailed from error
        finally:
            self._done(kind, outcome, time.monotonic() - began)
