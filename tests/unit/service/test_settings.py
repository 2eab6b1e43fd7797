"""The settings from environment variables."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from service.errors import StartupError
from service.settings import Keep, Settings


def test_without_variables_the_defaults_apply() -> None:
    """A developer needs only a kubeconfig and a file of tokens."""
    assert Settings.from_environment({}) == Settings()


def test_every_variable_is_read() -> None:
    """The names are those that the API's chart sets."""
    environment = {
        "PORT": "1", "METRICS_PORT": "2", "SERVERS_NAMESPACE": "a", "SFTP_NAMESPACE": "b", "POD_NAMESPACE": "c",
        "POD_NAME": "d", "CHART_PATH": "/e", "TOKENS_FILE": "/f", "SERVER_VALUES_FILE": "/g", "GAMES_DIR": "/h",
        "ACCEPTED_EULAS": "minecraft, other,", "MIN_RAM_GB": "3", "MAX_RAM_GB": "4", "MIN_DISK_GB": "5",
        "MAX_DISK_GB": "6", "EXTERNAL_HOST": "i", "HELM": "j", "HELM_DAEMON": "s", "HELM_PROCESSES": "7",
        "LOG_LEVEL": "DEBUG", "DRAIN_SECONDS": "8", "TOKENS_SECRET": "k", "ISSUED_TOKENS_SECRET": "l",
        "WEBHOOKS_SECRET": "p", "WEBHOOK_SECRETS_SECRET": "q", "WEBHOOKS_FOR_CUSTOMERS": "true",
        "WEBHOOK_ALLOWED": "10.1.2.0/24, fd00::/64", "WEBHOOK_REFUSED": "8.8.8.0/24",
        "LOG_FORMAT": "console", "DISK_IMAGE": "m", "DISK_IMAGE_PULL_SECRETS": "n,o",
        "BACKUP_STORE": '{"kind": "s3", "bucket": "worlds"}', "BACKUP_STORE_SECRET": "r", "BACKUP_STORE_CLAIM": "s",
        "BACKUP_NAMESPACE": "t", "BACKUP_IMAGE": "u", "BACKUP_IMAGE_PULL_SECRETS": "n,o", "BACKUP_RECOVERY_SECRET": "v",
        "BACKUP_JOB_RESOURCES": '{"limits": {"memory": "1Gi"}}', "BACKUP_SNAPSHOT_CLASS": "w",
        "BACKUP_KEEP": '{"last": 1, "hourly": 2, "daily": 3, "weekly": 4}', "BACKUPS_PER_SERVER": "5",
        "BACKUP_GB_PER_SERVER": "6", "BACKUPS_AT_ONCE": "7", "BACKUP_DAYS_AFTER_DELETE": "8", "BACKUP_UNDO_DAYS": "9",
        "BACKUP_PROOF_DAYS": "10", "BACKUP_PRUNE_HOURS": "11",
        "AUDIT_COMMANDS": "true", "CONSOLE_STDIN": "true",
        "IDLE_STOP_DEFAULT": "20", "IDLE_STOP_MIN": "15", "IDLE_STOP_MAX": "30", "IDLE_MINUTE_SECONDS": "1",
    }  # fmt: skip
    assert Settings.from_environment(environment) == Settings(
        port=1, metrics_port=2, servers_namespace="a", sftp_namespace="b", pod_namespace="c", pod_name="d",
        chart_path=Path("/e"), tokens_file=Path("/f"), server_values_file=Path("/g"), games_dir=Path("/h"),
        accepted_eulas=frozenset({"minecraft", "other"}), min_ram_gb=3, max_ram_gb=4, min_disk_gb=5, max_disk_gb=6,
        external_host="i", helm="j", helm_daemon="s", helm_processes=7, log_level="debug", drain_seconds=8,
        tokens_secret="k", issued_tokens_secret="l",
        webhooks_secret="p", webhook_secrets_secret="q", webhooks_for_customers=True,
        webhook_allowed=(ip_network("10.1.2.0/24"), ip_network("fd00::/64")),
        webhook_refused=(ip_network("8.8.8.0/24"),),
        log_format="console", disk_image="m", disk_image_pull_secrets=("n", "o"),
        backup_store={"kind": "s3", "bucket": "worlds"}, backup_store_secret="r", backup_store_claim="s",
        backup_namespace="t", backup_image="u", backup_image_pull_secrets=("n", "o"), backup_recovery_secret="v",
        backup_job_resources={"limits": {"memory": "1Gi"}}, backup_snapshot_class="w",
        backup_keep=Keep(last=1, hourly=2, daily=3, weekly=4), backups_per_server=5,
        backup_gb_per_server=6, backups_at_once=7, backup_days_after_delete=8, backup_undo_days=9,
        backup_proof_days=10, backup_prune_hours=11,
        audit_commands=True, console_stdin=True,
        idle_stop_default=20, idle_stop_min=15, idle_stop_max=30, idle_minute_seconds=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PORT": "http"}, "PORT='http'"),
        ({"MIN_RAM_GB": "0"}, "MIN_RAM_GB='0': must be a whole number from 1"),
        ({"MAX_RAM_GB": "1.5"}, "MAX_RAM_GB"),
        ({"MIN_DISK_GB": "9", "MAX_DISK_GB": "8"}, "MIN_DISK_GB=9 is larger"),
        ({"IDLE_STOP_MIN": "9", "IDLE_STOP_MAX": "8"}, "IDLE_STOP_MIN=9 is larger than IDLE_STOP_MAX=8"),
        ({"IDLE_STOP_DEFAULT": "5"}, "IDLE_STOP_DEFAULT=5: must be 0, or from 10 to 1440"),
        ({"IDLE_MINUTE_SECONDS": "61"}, "IDLE_MINUTE_SECONDS='61': must be a whole number from 1 to 60"),
        ({"WEBHOOKS_FOR_CUSTOMERS": "yes"}, "WEBHOOKS_FOR_CUSTOMERS='yes': must be true or false"),
        ({"WEBHOOK_ALLOWED": "10.0.0.1/8"}, "WEBHOOK_ALLOWED: must be ranges of addresses .*10.0.0.1/8 has host bits"),
        ({"WEBHOOK_REFUSED": "inside"}, "WEBHOOK_REFUSED: must be"),
        ({"BACKUP_STORE": "s3"}, "BACKUP_STORE: must be JSON"),
        ({"BACKUP_STORE": '["s3"]'}, "BACKUP_STORE: must be a JSON object"),
        ({"BACKUP_STORE": '{"kind": "ftp"}'}, "BACKUP_STORE: must be a JSON object with `kind` s3, sftp or folder"),
        ({"BACKUP_STORE": '{"kind": "s3"}', "BACKUP_IMAGE": "a", "BACKUP_NAMESPACE": "b"}, "BACKUP_RECOVERY_SECRET is"),
        ({"BACKUP_KEEP": '{"dayly": 1}'}, "BACKUP_KEEP: it has other fields than daily, hourly, last, weekly"),
        ({"BACKUP_KEEP": '{"daily": true}'}, "BACKUP_KEEP: its numbers are from 0 to 1000"),
        ({"BACKUP_JOB_RESOURCES": "1Gi"}, "BACKUP_JOB_RESOURCES: must be JSON"),
        ({"BACKUPS_PER_SERVER": "51"}, "BACKUPS_PER_SERVER='51': must be a whole number from 1 to 50"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL='loud'"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT='xml': must be json or console"),
        ({"PORT": "80800"}, "PORT='80800': must be a whole number from 1 to 65535"),
        ({"SERVERS_NAMESPACE": "Game Servers"}, "SERVERS_NAMESPACE='Game Servers': must be the name of a namespace"),
        ({"SFTP_NAMESPACE": "sftp."}, "SFTP_NAMESPACE='sftp.': must be"),
        (
            {"EXTERNAL_HOST": "https://play.example.com"},
            "EXTERNAL_HOST='https://play.example.com': must be a host name",
        ),
        ({"EXTERNAL_HOST": "play.example.com:25565"}, "must be a host name or an IP address"),
        ({"EXTERNAL_HOST": "192.0.2.256"}, "must be a host name or an IP address"),
        ({"EXTERNAL_HOST": "play..example.com"}, "must be a host name or an IP address"),
        ({"EXTERNAL_HOST": "[2001:db8::1]"}, "must be a host name or an IP address"),
    ],
)
def test_an_invalid_variable_is_named(environment: dict[str, str], message: str) -> None:
    """The message has the variable, its value and what it must be."""
    with pytest.raises(StartupError, match=message):
        Settings.from_environment(environment)


@pytest.mark.parametrize(
    "host", ["play.example.com", "Play.Example.com.", "play", "192.0.2.7", "2001:db8::1", "4u.example"]
)
def test_a_host_is_a_name_or_an_ip_address(host: str) -> None:
    """It is what customers' clients accept."""
    assert Settings.from_environment({"EXTERNAL_HOST": host}).external_host == host
