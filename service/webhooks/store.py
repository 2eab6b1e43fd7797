"""Where webhooks are kept: two Secrets of the API's own namespace, which the chart creates.

One has what they are, the other what they are signed with, by their uids. Of each the API needs `get` and `patch`, and
the controller `list` and `watch`.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.kube.client import Kube
from service.records.secret import SecretRecords
from service.settings import Settings


@dataclass(frozen=True)
class SecretWebhooks:
    """The webhooks, and apart from them their secrets."""

    config: SecretRecords
    secrets: SecretRecords


def secret_webhooks(settings: Settings, kube: Kube) -> SecretWebhooks | None:
    """The webhooks in the Secrets that the settings name; None if they name none."""
    if not settings.webhooks_secret or not settings.webhook_secrets_secret:
        return None
    return SecretWebhooks(
        SecretRecords(kube, settings.pod_namespace, settings.webhooks_secret),
        SecretRecords(kube, settings.pod_namespace, settings.webhook_secrets_secret),
    )
