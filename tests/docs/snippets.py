"""What the README and the handbook show between backticks: blocks, and commands within the text; and who runs each.

A snippet that is new or begins in another way fails `test_snippets.py` until a line here says which test runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from local.paths import ROOT

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")),
)

PICTURE = "a picture"
HERE = "tests/docs/test_snippets.py::"
REAL = "tests/cluster/test_documented.py::"
RUNBOOK = "tests/cluster/test_runbook.py::"
RESTORED = "tests/cluster/disks/test_restored_claims.py::"
BACKUPS = "tests/cluster/test_documented_backups.py::"
GAMES = "tests/cluster/test_games.py::"

#: By page, how each block begins, and the test that runs it. What a test does only in part (helm's
#: `--dry-run=server`, for what would replace the cluster's own API), the test says.
BLOCKS: dict[str, list[tuple[str, str]]] = {
    "README.md": [
        ("web shop ── HTTP ──> API (Flask, N replicas, HPA)", PICTURE),
        ("make run", HERE + "test_every_make_command_is_a_target"),
        ("Minecraft server 1 is up: join", HERE + "test_make_run_says_so"),
        (". .local/env", REAL + "test_the_api_is_called_as_written"),
        ("make test", HERE + "test_every_make_command_is_a_target"),
    ],
    "docs/api.md": [
        (". .local/env", REAL + "test_the_api_is_called_as_written"),
        ('{"success": false,',
         "tests/api/test_documented.py::test_the_error_is_answered_as_written"),
        ("--- these are the last lines of a run",
         "tests/api/test_kept_log.py::test_a_cut_answer_says_so"),
        ('"disk_gb": 20, "disk": {',
         "tests/api/test_documented.py::test_a_disk_is_shown_as_written"),
        ("GET /api/v1/server/4711/progress",
         "tests/api/test_progress.py::test_the_answers_are_as_documented"),
        ("event: progress",
         "tests/api/test_progress.py::test_the_answers_are_as_documented"),
        ("GET /api/v1/event",
         "tests/api/test_events.py::test_the_answer_is_as_documented"),
        ('"players": {"online"',
         "tests/api/test_players.py::test_who_plays_is_shown_as_written"),
        ('"usage": {"memory_gb"',
         "tests/api/test_players.py::test_what_the_game_uses_is_shown"),
        ('PATCH /api/v1/server/4711/   {"idle_stop_minutes": 30}',
         "tests/api/test_documented.py::test_idle_stop_is_shown_as_written"),
        ('"idle_stop_minutes": 30, "idle"',
         "tests/api/test_documented.py::test_idle_stop_is_shown_as_written"),
        ("PATCH /api/v1/server/4711/suspend",
         "tests/api/test_documented.py::test_a_suspension_is_shown_as_written"),
        ("PATCH /api/v1/server/4711/start",
         "tests/api/test_documented.py::test_a_wait_is_answered_as_written"),
        ("POST /api/v1/server/_bulk",
         "tests/api/test_documented.py::test_an_operation_is_shown_as_written"),
        ("GET /api/v1/operation/op-",
         "tests/api/test_documented.py::test_an_operation_is_shown_as_written"),
        ("POST /api/v1/server/4711/command",
         "tests/api/test_console.py::test_a_command_is_answered_as_written"),
        ('{"success": true, "output"',
         "tests/api/test_console.py::test_a_command_is_answered_as_written"),
        ("PUT /api/v1/server/4711/schedule/nightly",
         "tests/api/test_documented.py::test_a_schedule_is_set_as_written"),
        ('"next_run": "2026-06-02T02:17:00Z"',
         "tests/api/test_documented.py::test_a_schedule_is_set_as_written"),
        ("POST /api/v1/server/4711/backup",
         "tests/api/test_documented.py::test_a_backup_is_made_and_restored_as_written"),
        ("GET /api/v1/server/4711/backup/b-",
         "tests/api/test_documented.py::test_a_backup_is_made_and_restored_as_written"),
        ('PATCH /api/v1/server/4711/   {"backup_keep"',
         "tests/api/test_documented.py::test_a_backup_is_made_and_restored_as_written"),
        ("POST /api/v1/server/4711/restore",
         "tests/api/test_documented.py::test_a_backup_is_made_and_restored_as_written"),
        ("POST /api/v1/server/4712/",
         "tests/api/test_documented.py::test_a_backup_is_made_and_restored_as_written"),
        ("GET /api/v1/backup/?customer=acme&server=4711",
         "tests/api/test_documented.py::test_a_backup_is_made_and_restored_as_written"),
        ("POST /api/v1/token ",
         "tests/api/test_documented.py::test_a_token_is_answered_as_written"),
        ("POST /api/v1/login-link ",
         "tests/api/test_documented.py::test_a_login_link_is_answered_as_written"),
        ("PUT /api/v1/webhook/shop ", "tests/api/test_documented.py::test_a_webhook_is_answered_as_written"),
        ("POST /events HTTP/1.1", "tests/unit/service/controller/test_deliver.py::test_it_arrives_as_written"),
        ("import base64", "tests/docs/test_webhooks.py::test_a_delivery_is_verified_as_written"),
        ("/** Whether a delivery is from the API.",
         "tests/docs/test_webhooks.py::test_a_delivery_is_verified_as_written"),
    ],
    "docs/architecture.md": [
        ("web shop ── HTTP ──> API (Flask, N replicas, HPA)", PICTURE),
        ("wsgi", "tests/docs/test_architecture.py::test_the_picture_shows_the_layers_that_lint_holds"),
        ("/                            the world", PICTURE),
    ],
    "docs/games.md": [
        ("curl -X POST -H \"Authorization: Bearer $API_TOKEN\" -H 'Content-Type: application/json' \\",
         REAL + "test_the_api_is_called_as_written"),
        ("serverValues:", HERE + "test_server_values_are_taken"),
        ("console: {kind: rcon}", HERE + "test_minecraft_is_held_still_as_written"),
        ("# my-games.yaml", GAMES + "test_an_operators_game_needs_nothing_but_the_charts_values"),
        ("helm upgrade api charts/api -n gameserver-system --reuse-values --values my-games.yaml",
         REAL + "test_what_is_installed_is_changed_as_written"),
    ],
    "docs/operations.md": [
        ("kubectl create namespace gameserver-system", REAL + "test_it_is_installed_as_written"),
        ("helm upgrade --install api charts/api -n gameserver-system \\", REAL + "test_it_is_installed_as_written"),
        ("kubectl create namespace gameserver-sftp", REAL + "test_it_is_installed_as_written"),
        ("mkfs.xfs /dev/sdb", HERE + "test_a_pool_is_made_as_written"),
        ("kubectl create namespace gameserver-disks", REAL + "test_it_is_installed_as_written"),
        ("openssl rand -base64 48 > recovery-key", BACKUPS + "test_a_store_is_installed_as_written"),
        ("helm upgrade api charts/api -n gameserver-system --reuse-values \\",
         BACKUPS + "test_a_store_is_installed_as_written"),
        ("cat > credentials <<END", BACKUPS + "test_a_store_is_installed_as_written"),
        ("# store.yaml", BACKUPS + "test_a_store_is_installed_as_written"),
        ("ssh-keygen -t ed25519 -N '' -f id_ed25519", BACKUPS + "test_a_store_is_installed_as_written"),
        ("apiVersion: v1", BACKUPS + "test_a_store_is_installed_as_written"),
        ("kubectl -n gameservers get jobs -l gameserver/backup-job",
         BACKUPS + "test_the_jobs_are_looked_at_as_written"),
        ("export RESTIC_PASSWORD_FILE=recovery-key",
         "tests/unit/backup_job/test_recovery.py::test_the_recovery_key_is_replaced_as_written"),
        ("token=$(openssl rand -base64 32)", BACKUPS + "test_a_token_for_a_recovery_is_made_as_written"),
        ("kubectl -n gameservers-backups create job recovery",
         "tests/cluster/controller/test_recovery.py::test_every_server_comes_back_with_its_settings"),
        ("POST /api/v1/server/_bulk",
         "tests/api/test_documented.py::test_an_operation_is_shown_as_written"),
        ("kubectl -n gameserver-disks get csistoragecapacities",
         REAL + "test_what_is_installed_is_looked_at_as_written"),
        ("kubectl -n gameserver-system get pods -l app.kubernetes.io/instance=api",
         GAMES + "test_an_operators_game_needs_nothing_but_the_charts_values"),
        ("kubectl -n gameserver-system patch secret api-issued-tokens --type=merge",
         "tests/cluster/test_access.py::test_all_tokens_that_were_given_out_are_ended_as_written"),
        ('{"time": ',
         "tests/api/test_gunicorn.py::test_a_mistake_of_the_operators_is_one_line_of_the_log"),
        ("kubectl -n gameservers get lease gameserver-controller",
         "tests/cluster/test_controller.py::test_the_docs_say_how_to_find_the_active_pod"),
        ("scrape_configs:",
         "tests/cluster/test_metrics.py::test_prometheus_sees_every_replica"),
        ("kubectl get services -A -o jsonpath=",
         REAL + "test_what_is_installed_is_looked_at_as_written"),
        ("service: {type: ClusterIP, externalHostname: ",
         HERE + "test_minecraft_by_host_name"),
        ("helm -n gameservers get values server-4711", RUNBOOK + "test_looking_shows_the_server"),
        ("helm -n gameservers upgrade server-4711 charts/gameserver --reuse-values --set ramGb=4",
         RUNBOOK + "test_a_value_is_changed_and_stays"),
        ("helm -n gameservers rollback server-4711", RUNBOOK + "test_a_rollback_is_gone_on_from"),
        ("helm -n gameservers upgrade server-4711 charts/gameserver --reuse-values --set diskGb=20",
         RUNBOOK + "test_a_rollback_is_gone_on_from"),
        ("helm -n gameservers get values server-4711 -o yaml > server-4711.yaml",
         RUNBOOK + "test_an_uninstall_keeps_the_disk_for_helm_and_for_the_api"),
        ("helm -n gameservers install server-4711 charts/gameserver -f server-4711.yaml",
         RUNBOOK + "test_an_uninstall_keeps_the_disk_for_helm_and_for_the_api"),
        ("helm -n gameservers history server-4711", RUNBOOK + "test_a_release_left_pending_is_rolled_back"),
        ("kubectl -n gameservers delete secret server-4711-rcon", RUNBOOK + "test_an_rcon_password_is_replaced"),
        ("kubectl -n gameservers get statefulset server-4711 -o jsonpath='{.metadata.annotations.gameserver/server}'",
         RUNBOOK + "test_a_lost_release_is_made_again_over_its_disk"),
        ("kubectl -n gameservers delete statefulset,service,secret,networkpolicy -l gameserver/id=4711",
         RUNBOOK + "test_a_lost_release_is_made_again_over_its_disk"),
        ("volume=$(kubectl get pv -o jsonpath=", RESTORED + "test_a_volume_that_outlived_its_claim_is_used_again"),
        ("curl -sS --fail-with-body -X POST",
         RESTORED + "test_a_volume_that_outlived_its_claim_is_used_again"),
        ("helm -n gameservers upgrade server-4711 charts/gameserver --reuse-values --force-conflicts",
         RUNBOOK + "test_a_field_taken_by_another_tool_is_given_back"),
    ],
    "docs/sftp.md": [
        ('{"as_of": ', "tests/unit/agent/test_usage.py::test_the_record_is_as_documented"),
        ('PUT /api/v1/server/4711/sftp   {"password": true, "public_keys": ["ssh-ed25519 AAAA… me@home"]}',
         "tests/api/test_documented.py::test_an_account_is_answered_as_written"),
        ("profile gameserver-sftp flags=(attach_disconnected) {", HERE + "test_the_apparmor_profile_is_one"),
        ("ssh-keygen -q -t ed25519 -N '' -C '' -f ssh_host_ed25519_key", REAL + "test_files_are_set_up_as_written"),
        ("kubectl -n gameserver-sftp logs daemonset/sftp --all-pods --tail=-1 | grep '\"server\": 4711'",
         REAL + "test_files_are_set_up_as_written"),
        ("┌──────────────────── pod of the DaemonSet ───────────────────┐", PICTURE),
    ],
    "CONTRIBUTING.md": [
        ("make unit", HERE + "test_every_make_command_is_a_target"),
        ("make release", HERE + "test_every_make_command_is_a_target"),
    ],
}  # fmt: skip

#: Commands within the text, by themselves; a program with one word and flags (`helm upgrade --wait`) only
#: names one, and one with three dots is a pattern.
COMMANDS = {
    "kubectl get jobs -A -l gameserver/backup-job": BACKUPS + "test_the_jobs_are_looked_at_as_written",
    "kubectl -n gameserver-system rollout restart deployment api": REAL
    + "test_what_is_installed_is_changed_as_written",
    "helm -n gameserver-system rollback api": REAL + "test_what_is_installed_is_changed_as_written",
    "kubectl top pods -n gameserver-system": REAL + "test_what_is_installed_is_looked_at_as_written",
    "kubectl -n gameserver-sftp delete secret server-4711": REAL + "test_files_are_set_up_as_written",
    "helm upgrade --reuse-values --set ramGb=8": RUNBOOK + "test_a_value_is_changed_and_stays",
}
_PROGRAMS = ("apparmor_parser", "curl", "helm", "kubectl", "make", "mount", "sftp", "ssh", "ssh-keygen")


@dataclass(frozen=True)
class Snippet:
    """A block of a page."""

    page: str
    text: str

    @property
    def first(self) -> str:
        """Its first line."""
        return self.text.strip().splitlines()[0].strip()


def blocks(page: str) -> list[Snippet]:
    """The page's fenced blocks, without the indentation of a list around them."""
    matches = re.finditer(r"^( *)```\w*\n(.*?)^ *```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [Snippet(page, re.sub(rf"^{block[1]}", "", block[2], flags=re.MULTILINE)) for block in matches]


def block(page: str, first: str) -> str:
    """The block that begins with this."""
    texts = [snippet.text for snippet in blocks(page) if snippet.first.startswith(first)]
    assert texts, f"{page} has no block that begins with {first!r}"
    return texts[0]


def commands(page: str) -> Iterator[str]:
    """The commands in the page's text that can be run as written."""
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", text):
        words = span.split()
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words and words[0] in _PROGRAMS and len(words) > 1:
            yield " ".join(span.split())
