"""The API writes webhooks, the controller only watches them; neither reads another Secret of that namespace."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import ClusterUnavailable
from service.kube.client import Kube
from service.records.secret import Records
from service.settings import Settings
from service.webhooks.store import SecretWebhooks, secret_webhooks
from tests.charts.rendering import Manifest, render
from tests.charts.test_rights import RBAC, as_account, granted, used
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = pytest.mark.cluster
CONFIG, SECRETS = "api-webhooks", "api-webhook-secrets"


@contextmanager
def account(role: str) -> Iterator[tuple[Kube, str, Manifest]]:
    """A namespace with the Secrets of webhooks and another one, and an account that has only this role."""
    assert "KUBECONFIG" in os.environ, "no cluster: `make test` brings one up"
    kube, name = Kube(), f"rights-{secrets.token_hex(4)}"
    manifests = render("api", {"tokens": {"existingSecret": "unused"}})
    binding = manifests[f"RoleBinding/{role}"]
    kept = [manifests[f"Secret/{CONFIG}"], manifests[f"Secret/{SECRETS}"]]
    for manifest in (manifests[f"Role/{role}"], binding, *kept):
        manifest["metadata"]["namespace"] = name
    binding["subjects"][0] |= {"namespace": name, "name": "api"}
    kube.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        api: Manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "api"}}
        kube.create(f"/api/v1/namespaces/{name}/serviceaccounts", api)
        kube.create(f"{RBAC}/namespaces/{name}/roles", manifests[f"Role/{role}"])
        kube.create(f"{RBAC}/namespaces/{name}/rolebindings", binding)
        for secret in (*kept, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"}}):
            kube.create(f"/api/v1/namespaces/{name}/secrets", secret)
        yield kube, name, manifests[f"Role/{role}"]
    finally:
        kube.delete(f"/api/v1/namespaces/{name}")


def webhooks(namespace: str, kube: Kube) -> SecretWebhooks:
    """As both programs find them."""
    settings = replace(Settings(), pod_namespace=namespace, webhooks_secret=CONFIG, webhook_secrets_secret=SECRETS)
    found = secret_webhooks(settings, kube)
    assert found is not None
    return found


def refused(*calls: Callable[[], object]) -> None:
    for call in calls:
        with pytest.raises(ClusterUnavailable, match="denies"):
            call()


def test_the_api_reads_and_writes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every right of its role, and no other."""
    with account("api-webhooks") as (kube, namespace, role):
        proxy = Proxy(str(as_account(kube, namespace, tmp_path)))
        with proxy.running():
            monkeypatch.setenv("KUBECONFIG", proxy.kubeconfig(tmp_path))
            mine, collection = Kube(), f"/api/v1/namespaces/{namespace}/secrets"
            kept = webhooks(namespace, mine)
            kept.secrets.change(lambda records: {"uid": "secret"})
            kept.config.change(lambda records: {"shop": "text"})
            assert (kept.config.read(), kept.secrets.read()) == ({"shop": "text"}, {"uid": "secret"})
            # Unlike an apply, a merge patch creates nothing.
            assert used([*proxy.requests, *proxy.watches]) - {("", "secrets", "create")} == granted(role)
            refused(
                lambda: mine.get(f"{collection}/other"),
                lambda: mine.all(collection),
                lambda: mine.all(collection, fieldSelector=f"metadata.name={SECRETS}"),
                lambda: mine.merge(f"{collection}/other", {"data": {}}),
                lambda: mine.delete(f"{collection}/{CONFIG}"),
            )


def test_the_controller_watches_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And changes neither."""
    with account("api-controller-webhooks") as (kube, namespace, role):
        proxy = Proxy(str(as_account(kube, namespace, tmp_path)))
        with proxy.running():
            monkeypatch.setenv("KUBECONFIG", proxy.kubeconfig(tmp_path))
            mine, collection = Kube(), f"/api/v1/namespaces/{namespace}/secrets"
            seen: list[Records] = []
            kept = webhooks(namespace, mine)
            for watched in (kept.config.watch(seen.append), kept.secrets.watch(seen.append)):
                watched.start()
            until(lambda: seen == [{}, {}] and len(proxy.watches) == 2)
            assert used([*proxy.requests, *proxy.watches]) == granted(role)
            refused(
                lambda: mine.get(f"{collection}/{SECRETS}"),
                lambda: mine.get(f"{collection}/other"),
                lambda: mine.all(collection, fieldSelector="metadata.name=other"),
                lambda: mine.merge(f"{collection}/{CONFIG}", {"data": {}}),
                lambda: mine.merge(f"{collection}/{SECRETS}", {"data": {}}),
            )
