"""The contract of the SFTP accounts, for the fake of the API's tests and for Secrets of an in-memory Kubernetes.

tests/cluster/files checks Secrets and agents on a real cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from service.errors import FileAccessNotInstalled
from service.files.accounts import Account, SecretAccounts
from service.kube.client import path
from service.operations.interfaces import Accounts
from service.settings import Settings
from tests.support.fakes import FINGERPRINT, FakeAccounts
from tests.support.memory_kube import MemoryKube

NAMESPACE = "gameserver-sftp"
KEY = "ssh-ed25519 AAAA"


@dataclass
class Files:
    """The accounts, and what only an operator can do: uninstall the chart, which removes the API's rights."""

    accounts: Accounts
    uninstall: Callable[[], None]


@pytest.fixture(params=["fake", "real"])
def files(request: pytest.FixtureRequest) -> Files:
    """Each test with this fixture runs against both kinds."""
    if request.param == "fake":
        fake = FakeAccounts()
        return Files(fake, lambda: setattr(fake, "installed", False))
    kube = MemoryKube()
    kube.objects[path("apps/v1", NAMESPACE, "daemonsets")] = {"items": [{}]}
    kube.objects[path("v1", NAMESPACE, "configmaps", "sftp-host-key")] = {"data": {"fingerprints": f"{FINGERPRINT}\n"}}

    def refuse(method: str, path: str) -> None:
        raise FileAccessNotInstalled

    return Files(
        SecretAccounts(replace(Settings(), sftp_namespace=NAMESPACE), kube), lambda: setattr(kube, "before", refuse)
    )


def test_without_an_account_there_are_no_credentials(files: Files) -> None:
    """A new server has an account without password and keys."""
    assert files.accounts.account(1) == Account()


def test_a_change_is_read_again(files: Files) -> None:
    """A change gets the current account, and returns the one that it has written."""
    both = Account("$7$hash", (KEY,))
    assert files.accounts.change(1, lambda _: both) == both
    less = files.accounts.change(1, lambda account: replace(account, password_hash=None))
    assert less == files.accounts.account(1) == Account(None, (KEY,))


def test_a_change_of_nothing_returns_the_account(files: Files) -> None:
    """A change that changes nothing returns the current account, or an empty one if there is none."""
    assert files.accounts.change(1, lambda account: account) == Account()
    both = files.accounts.change(1, lambda _: Account("$7$hash", (KEY,)))
    assert files.accounts.change(1, lambda account: account) == both


def test_each_server_has_its_own(files: Files) -> None:
    """A change or removal of one server's account does not affect another's."""
    files.accounts.change(1, lambda _: Account("$7$one"))
    files.accounts.change(11, lambda _: Account("$7$eleven"))
    files.accounts.remove(1)
    assert (files.accounts.account(1), files.accounts.account(11)) == (Account(), Account("$7$eleven"))


def test_removing_twice_is_removing_once(files: Files) -> None:
    """A second removal changes nothing, and removing an account that never existed is no error."""
    files.accounts.remove(1)
    files.accounts.change(1, lambda _: Account("$7$hash"))
    files.accounts.remove(1)
    files.accounts.remove(1)
    assert files.accounts.account(1) == Account()


def test_the_host_keys_are_those_that_the_chart_publishes(files: Files) -> None:
    """The host keys are the fingerprints in the chart's ConfigMap."""
    assert files.accounts.host_keys() == [FINGERPRINT]


def test_a_disk_without_a_volume_may_still_become_a_nodes_own(files: Files) -> None:
    """A disk without a volume counts as node-local, because it may become so."""
    assert files.accounts.node_local({"spec": {}})


def test_without_the_chart_every_call_but_remove_fails(files: Files) -> None:
    """Without the chart every call raises FileAccessNotInstalled, except remove, so that a server can be deleted."""
    files.accounts.change(1, lambda _: Account("$7$hash"))
    files.uninstall()
    for call in (
        files.accounts.host_keys,
        lambda: files.accounts.account(1),
        lambda: files.accounts.change(1, lambda account: account),
        lambda: files.accounts.node_local({"spec": {"volumeName": "volume"}}),
    ):
        with pytest.raises(FileAccessNotInstalled):
            call()
    files.accounts.remove(1)
