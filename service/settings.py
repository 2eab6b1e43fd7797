"""The settings of an API process, which it reads from its environment once."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from service.errors import StartupError

LONGEST_IDLE_STOP = 525600
"""A year, in minutes. The chart gameserver has the same limit."""
PACKAGE = Path(__file__).resolve().parent
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?", re.IGNORECASE)


@dataclass(frozen=True)
class Keep:
    """How many backups a schedule keeps: the newest, and the newest of each of so many hours, days and weeks."""

    last: int = 3
    hourly: int = 0
    daily: int = 7
    weekly: int = 4


@dataclass(frozen=True)
class Settings:
    """The settings. Sizes are in GiB; an empty string means "not set"; `helm_processes` 0 means two per CPU.

    `helm_daemon` is the program that does helm's work while it runs; none if empty.

    `idle_stop_…` are minutes, 0 for never. A minute of the idle stop has `idle_minute_seconds`; fewer than 60 are for
    tests. `audit_commands` says whether audit lines have the text of commands, and `console_stdin` whether this process
    may write to the standard input of games.

    `backup_store` says where backups are stored, without secrets, as the Jobs' program reads it (backup/backup_job);
    None if there is no store. `backup_job_resources` are those of a Job's container. `backup_gb_per_server` 0 means no
    limit, and `backup_proof_days` 0 no proofs.
    """

    port: int = 8080
    metrics_port: int = 9090
    servers_namespace: str = "gameservers"
    sftp_namespace: str = ""
    pod_namespace: str = "gameserver-system"
    pod_name: str = "local"
    chart_path: Path = PACKAGE.parent / "charts" / "gameserver"
    tokens_file: Path | None = None
    tokens_secret: str = ""
    issued_tokens_secret: str = ""
    webhooks_secret: str = ""
    webhook_secrets_secret: str = ""
    webhooks_for_customers: bool = False
    webhook_allowed: tuple[Network, ...] = ()
    webhook_refused: tuple[Network, ...] = ()
    server_values_file: Path | None = None
    games_dir: Path | None = None
    accepted_eulas: frozenset[str] = frozenset()
    min_ram_gb: int = 1
    max_ram_gb: int = 64
    min_disk_gb: int = 1
    max_disk_gb: int = 1000
    bulk_at_once: int = 4
    bulk_per_minute: int = 120
    idle_stop_default: int = 0
    idle_stop_min: int = 10
    idle_stop_max: int = 1440
    idle_minute_seconds: int = 60
    external_host: str = ""
    audit_commands: bool = False
    console_stdin: bool = False
    disk_image: str = ""
    disk_image_pull_secrets: tuple[str, ...] = ()
    helm: str = "helm"
    helm_daemon: str = "helm-daemon"
    helm_processes: int = 0
    log_level: str = "info"
    log_format: str = "json"
    drain_seconds: int = 5
    controller_operations_at_once: int = 8
    backup_store: Mapping[str, Any] | None = None
    backup_store_secret: str = ""
    backup_store_claim: str = ""
    backup_namespace: str = ""
    backup_image: str = ""
    backup_image_pull_secrets: tuple[str, ...] = ()
    backup_job_resources: Mapping[str, Any] = field(
        default_factory=lambda: {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
    )
    backup_recovery_secret: str = ""
    backup_snapshot_class: str = ""
    backup_keep: Keep = Keep()
    backups_per_server: int = 20
    backup_gb_per_server: int = 0
    backups_at_once: int = 8
    backup_days_after_delete: int = 14
    backup_undo_days: int = 7
    backup_proof_days: int = 30
    backup_prune_hours: int = 24

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """The settings in `environment`; raises StartupError, which names the variable that is invalid."""
        default = cls()

        def number(name: str, fallback: int, smallest: int = 0, largest: int = 2**20) -> int:
            text = environment.get(name) or str(fallback)
            if not re.fullmatch(r"[0-9]{1,9}", text) or not smallest <= int(text) <= largest:
                raise StartupError(f"{name}={text!r}: must be a whole number from {smallest} to {largest}")
            return int(text)

        def namespace(name: str, fallback: str) -> str:
            text = environment.get(name, fallback)
            if text and not re.fullmatch(_LABEL, text):
                raise StartupError(f"{name}={text!r}: must be the name of a namespace (lowercase letters, digits, `-`)")
            return text

        def text(name: str, fallback: str) -> str:
            return environment.get(name, fallback)

        def flag(name: str) -> bool:
            text = environment.get(name) or "false"
            if text not in ("true", "false"):
                raise StartupError(f"{name}={text!r}: must be true or false")
            return text == "true"

        def networks(name: str) -> tuple[Network, ...]:
            try:
                return tuple(ipaddress.ip_network(part.strip()) for part in text(name, "").split(",") if part.strip())
            except ValueError as error:
                raise StartupError(f"{name}: must be ranges of addresses such as 10.1.2.0/24: {error}") from error

        def path(name: str) -> Path | None:
            return Path(environment[name]) if environment.get(name) else None

        settings = cls(
            port=number("PORT", default.port, 1, 65535),
            metrics_port=number("METRICS_PORT", default.metrics_port, 0, 65535),
            servers_namespace=namespace("SERVERS_NAMESPACE", default.servers_namespace),
            sftp_namespace=namespace("SFTP_NAMESPACE", default.sftp_namespace),
            pod_namespace=namespace("POD_NAMESPACE", default.pod_namespace),
            pod_name=text("POD_NAME", default.pod_name),
            chart_path=path("CHART_PATH") or default.chart_path,
            tokens_file=path("TOKENS_FILE"),
            tokens_secret=text("TOKENS_SECRET", default.tokens_secret),
            issued_tokens_secret=text("ISSUED_TOKENS_SECRET", default.issued_tokens_secret),
            webhooks_secret=text("WEBHOOKS_SECRET", default.webhooks_secret),
            webhook_secrets_secret=text("WEBHOOK_SECRETS_SECRET", default.webhook_secrets_secret),
            webhooks_for_customers=flag("WEBHOOKS_FOR_CUSTOMERS"),
            webhook_allowed=networks("WEBHOOK_ALLOWED"),
            webhook_refused=networks("WEBHOOK_REFUSED"),
            server_values_file=path("SERVER_VALUES_FILE"),
            games_dir=path("GAMES_DIR"),
            accepted_eulas=frozenset(part.strip() for part in text("ACCEPTED_EULAS", "").split(",") if part.strip()),
            min_ram_gb=number("MIN_RAM_GB", default.min_ram_gb, 1),
            max_ram_gb=number("MAX_RAM_GB", default.max_ram_gb, 1),
            min_disk_gb=number("MIN_DISK_GB", default.min_disk_gb, 1),
            max_disk_gb=number("MAX_DISK_GB", default.max_disk_gb, 1),
            bulk_at_once=number("BULK_AT_ONCE", default.bulk_at_once, 1, 64),
            bulk_per_minute=number("BULK_PER_MINUTE", default.bulk_per_minute, 1, 6000),
            idle_stop_default=number("IDLE_STOP_DEFAULT", default.idle_stop_default, 0, LONGEST_IDLE_STOP),
            idle_stop_min=number("IDLE_STOP_MIN", default.idle_stop_min, 1, LONGEST_IDLE_STOP),
            idle_stop_max=number("IDLE_STOP_MAX", default.idle_stop_max, 1, LONGEST_IDLE_STOP),
            idle_minute_seconds=number("IDLE_MINUTE_SECONDS", default.idle_minute_seconds, 1, 60),
            external_host=text("EXTERNAL_HOST", default.external_host),
            audit_commands=flag("AUDIT_COMMANDS"),
            console_stdin=flag("CONSOLE_STDIN"),
            disk_image=text("DISK_IMAGE", default.disk_image),
            disk_image_pull_secrets=tuple(filter(None, text("DISK_IMAGE_PULL_SECRETS", "").split(","))),
            helm=text("HELM", default.helm),
            helm_daemon=text("HELM_DAEMON", default.helm_daemon),
            helm_processes=number("HELM_PROCESSES", default.helm_processes),
            log_level=text("LOG_LEVEL", default.log_level).lower(),
            log_format=text("LOG_FORMAT", default.log_format).lower(),
            drain_seconds=number("DRAIN_SECONDS", default.drain_seconds),
            controller_operations_at_once=number(
                "CONTROLLER_OPERATIONS_AT_ONCE", default.controller_operations_at_once, 1, 100
            ),
            backup_store=_store(text("BACKUP_STORE", "")),
            backup_store_secret=text("BACKUP_STORE_SECRET", default.backup_store_secret),
            backup_store_claim=text("BACKUP_STORE_CLAIM", default.backup_store_claim),
            backup_namespace=namespace("BACKUP_NAMESPACE", default.backup_namespace),
            backup_image=text("BACKUP_IMAGE", default.backup_image),
            backup_image_pull_secrets=tuple(filter(None, text("BACKUP_IMAGE_PULL_SECRETS", "").split(","))),
            backup_job_resources=_object("BACKUP_JOB_RESOURCES", text("BACKUP_JOB_RESOURCES", ""))
            or default.backup_job_resources,
            backup_recovery_secret=text("BACKUP_RECOVERY_SECRET", default.backup_recovery_secret),
            backup_snapshot_class=text("BACKUP_SNAPSHOT_CLASS", default.backup_snapshot_class),
            backup_keep=_keep(text("BACKUP_KEEP", "")),
            backups_per_server=number("BACKUPS_PER_SERVER", default.backups_per_server, 1, 50),
            backup_gb_per_server=number("BACKUP_GB_PER_SERVER", default.backup_gb_per_server),
            backups_at_once=number("BACKUPS_AT_ONCE", default.backups_at_once, 1, 100),
            backup_days_after_delete=number("BACKUP_DAYS_AFTER_DELETE", default.backup_days_after_delete, 0, 3650),
            backup_undo_days=number("BACKUP_UNDO_DAYS", default.backup_undo_days, 0, 365),
            backup_proof_days=number("BACKUP_PROOF_DAYS", default.backup_proof_days, 0, 365),
            backup_prune_hours=number("BACKUP_PRUNE_HOURS", default.backup_prune_hours, 1, 720),
        )
        if settings.external_host and not _is_host(settings.external_host):
            raise StartupError(
                f"EXTERNAL_HOST={settings.external_host!r}: must be a host name or an IP address,"
                " without scheme or port"
            )
        for resource, smallest, largest in (
            ("RAM", settings.min_ram_gb, settings.max_ram_gb),
            ("DISK", settings.min_disk_gb, settings.max_disk_gb),
        ):
            if smallest > largest:
                raise StartupError(f"MIN_{resource}_GB={smallest} is larger than MAX_{resource}_GB={largest}")
        shortest, longest, idle = settings.idle_stop_min, settings.idle_stop_max, settings.idle_stop_default
        if shortest > longest:
            raise StartupError(f"IDLE_STOP_MIN={shortest} is larger than IDLE_STOP_MAX={longest}")
        if idle and not shortest <= idle <= longest:
            raise StartupError(f"IDLE_STOP_DEFAULT={idle}: must be 0, or from {shortest} to {longest}")
        if settings.backup_store:
            for name in ("BACKUP_IMAGE", "BACKUP_NAMESPACE", "BACKUP_RECOVERY_SECRET"):
                if not text(name, ""):
                    raise StartupError(f"{name} is needed with a BACKUP_STORE")
        if settings.log_level not in ("debug", "info", "warning", "error"):
            raise StartupError(f"LOG_LEVEL={settings.log_level!r}: must be debug, info, warning or error")
        if settings.log_format not in ("json", "console"):
            raise StartupError(f"LOG_FORMAT={settings.log_format!r}: must be json or console")
        return settings


def _store(text: str) -> Mapping[str, Any] | None:
    store = _object("BACKUP_STORE", text)
    if store and store.get("kind") not in ("s3", "sftp", "folder"):
        raise StartupError("BACKUP_STORE: must be a JSON object with `kind` s3, sftp or folder")
    return store or None


def _object(name: str, text: str) -> Mapping[str, Any]:
    """The JSON object in a variable; {} if it is empty."""
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise StartupError(f"{name}: must be JSON: {error}") from error
    if not isinstance(value, dict):
        raise StartupError(f"{name}: must be a JSON object")
    return value


def _keep(text: str) -> Keep:
    numbers = _object("BACKUP_KEEP", text)
    names = {one.name for one in fields(Keep)}
    if not set(numbers) <= names:
        raise StartupError(f"BACKUP_KEEP: it has other fields than {', '.join(sorted(names))}")
    if any(type(number) is not int or not 0 <= number <= 1000 for number in numbers.values()):
        raise StartupError("BACKUP_KEEP: its numbers are from 0 to 1000")
    return Keep(**numbers)


def _is_host(text: str) -> bool:
    """Whether `text` is a host name or an IP address, without scheme or port."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # A name whose last label has only digits looks like an IP address, but is not a valid one.
        return bool(_HOST_NAME.fullmatch(text)) and not re.search(r"(^|\.)[0-9]+\.?\Z", text)
    return True
