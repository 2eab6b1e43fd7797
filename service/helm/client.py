"""Runs the two helm commands, in a slot of the pool and under a Lease, and turns their failures into problems."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from pyhelm3 import errors as helm_errors

from service.errors import OperationFailed, Problem
from service.helm import command
from service.helm.charts import ChartContent
from service.helm.pool import HelmPool, Work
from service.helm.trial import Trial
from service.kube.client import Kube
from service.kube.leases import Lease
from service.servers.values import Values
from service.settings import Settings

log = logging.getLogger(__name__)

Done = Callable[[str, str, float], None]
"""Called after each helm operation with its kind, its outcome ("success" or a problem's slug) and its seconds."""


class HelmClient:
    """Writes releases of the chart gameserver, whose content is `chart`. Create it after a fork: it starts a thread."""

    def __init__(self, settings: Settings, kube: Kube, done: Done, daemon_runs: Callable[[bool], None]) -> None:
        self._namespace = settings.servers_namespace
        daemon = command.daemon(settings.helm_daemon, daemon_runs)
        self._client = command.client(settings.helm, daemon, Trial(kube, self._namespace))
        self._chart = command.chart(self._client, settings.chart_path)
        self.chart = ChartContent.of_folder(settings.chart_path)
        self._pool = HelmPool(settings.helm_processes or 2 * (os.cpu_count() or 1))
        if daemon is not None:
            self._pool.keep(daemon.keep())
        self._done = done

    def upgrade(self, kind: str, release: str, values: Values, lease: Lease, *, force_conflicts: bool = False) -> None:
        """Upgrade the release to exactly these values, or install it if it does not exist.

        An upgrade of which Kubernetes would refuse a part is not begun.

        Args:
            kind: What the upgrade is for, such as "install" or "change"; used in logs and metrics.
            release: The release's name.
            values: All values of the release.
            lease: The server's Lease.
            force_conflicts: Take back the fields that others have taken over from Helm.

        Raises:
            Problem: helm failed, or found no slot.
        """
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
                force_conflicts=force_conflicts,
                # Without it, helm treats empty values as "the previous values".
                reset_values=True,
            ),
        )

    def uninstall(self, release: str, lease: Lease) -> None:
        """Uninstall the release, without waiting for its pod to end. Raises Problem as `upgrade` does."""
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
