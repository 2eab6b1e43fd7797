"""Tokens from two Secrets in the API's own namespace, each of which is watched.

One Secret is the operator's, with the file `tokens.json`. The other is the API's, with a key for each issued token and
login link. Every replica applies a change as soon as its watch reports it. While Kubernetes is away, the last known
tokens stay valid.

This module needs these rights in the API's own namespace, for these two Secrets only:

    both                get list watch
    the API's           patch
"""

from __future__ import annotations

import base64
import logging
import random
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from service.errors import (
    ClusterUnavailable,
    Problem,
    StartupError,
    Unauthorized,
)
from service.kube.client import Kube
from service.kube.times import stamp
from service.kube.types import Object
from service.records.secret import Change, Records, SecretRecords
from service.records.store import decoded
from service.settings import Settings
from service.tokens import Token, digest_of, holder, parse
from service.tokenstore.records import TOKEN, Issued, all_of, token_key, written

log = logging.getLogger(__name__)
# The machine's own randomness, as in kube/watch.py.
_random = random.SystemRandom()

FILE = "tokens.json"
SYNC_SECONDS = 3.0
# Save the uses of this many seconds together, because etcd stores the whole Secret again at each write.
USES_SECONDS = (30.0, 60.0)


class WatchedTokens:
    """The tokens in the two Secrets. Create it after a fork. Safe to use from many threads."""

    def __init__(self, settings: Settings, kube: Kube | None = None) -> None:
        self._kube, namespace = kube or Kube(connections=8), settings.pod_namespace
        self._source = f"Secret {namespace}/{settings.tokens_secret}: {FILE}"
        self._operators_secret = SecretRecords(self._kube, namespace, settings.tokens_secret)
        title = "The Secret for issued tokens"
        self._issued_secret = SecretRecords(self._kube, namespace, settings.issued_tokens_secret, title)
        self._operators_watch, self._issued_watch = self._operators_secret.watch(), self._issued_secret.watch()
        self._lock = threading.Lock()
        self._operators: tuple[Token, ...] | None = None
        self._operators_seen: Object | None = None
        self._issued: Mapping[str, Issued] = {}
        self._issued_seen: Object | None = None
        self._reported: set[tuple[str, str]] = set()
        self._uses: set[str] = set()
        self._used = threading.Event()

    def start(self) -> None:
        """Read the operator's tokens and start to watch; raises StartupError if they are missing or invalid."""
        try:
            self._operators = self._parse(self._kube.get(self._operators_secret.path))
        except ClusterUnavailable as problem:
            # Start anyway: calls get 503 until the watch has reported the tokens.
            log.warning("cannot read the operator's tokens yet: %s", problem.detail)
        self._operators_watch.start()
        self._issued_watch.start()
        # Only the start waits. If calls waited, calls without a valid token could hold all threads.
        self._issued_watch.wait(SYNC_SECONDS)
        threading.Thread(target=self._write_uses, name="uses of tokens", daemon=True).start()

    def caller(self, authorization: str | None) -> Token:
        """The token in an Authorization header; raises Unauthorized without a valid one."""
        digest = digest_of(authorization)
        with suppress(Unauthorized):
            return holder(self.operators(), digest)
        issued = self._issued_records()
        token = holder((record.token for key, record in issued.items() if key.startswith(TOKEN)), digest)
        if issued[token_key(token.name)].last_used != current_hour():
            self._uses.add(token_key(token.name))
            self._used.set()
        return token

    def operators(self) -> tuple[Token, ...]:
        """The operator's tokens; raises ClusterUnavailable until they have been read once."""
        secret = self._operators_secret.seen_by(self._operators_watch)
        with self._lock:
            if secret is not None and secret is not self._operators_seen:
                self._operators_seen = secret
                self._update_operators(secret)
            if self._operators is None:
                raise ClusterUnavailable("The API does not know its tokens yet, because Kubernetes has not answered.")
            return self._operators

    def issued(self) -> Records:
        """The current records of issued tokens and login links, read from Kubernetes."""
        return self._issued_secret.read()

    def heard_of(self, key: str) -> bool:
        """Whether the watch last reported a record with this key; this sends no request."""
        return key in self._issued_records()

    def change(self, change: Change) -> None:
        """Write the result of `change`; if another replica wrote meanwhile, read the records again and repeat."""
        self._issued_secret.change(change)

    def write_uses(self) -> None:
        """Save which tokens were used, unless a replica has done so this hour."""
        used, self._uses = self._uses, set()
        hour = current_hour()

        def set_last_used(records: Records) -> dict[str, str | None]:
            issued = all_of({key: records[key] for key in used if key in records})
            return {
                key: written(replace(record, last_used=hour))
                for key, record in issued.items()
                if record.last_used != hour
            }

        try:
            self.change(set_last_used)
        except Problem as problem:
            log.warning("could not save when tokens were last used: %s", problem.detail)

    # -- reads ---------------------------------------------------------------------------------------------

    def _update_operators(self, secret: Object) -> None:
        try:
            tokens = self._parse(secret)
        except StartupError:
            # A mistake in the Secret must not lock everyone out, so the old tokens stay valid.
            log.exception("cannot use the operator's changed tokens; keeping the previous tokens")
            return
        if tokens != self._operators:
            self._operators = tokens
            log.info("reloaded the operator's tokens: %s", ", ".join(token.name for token in tokens))

    def _parse(self, secret: Object | None) -> tuple[Token, ...]:
        source = self._source
        encoded = ((secret or {}).get("data") or {}).get(FILE)
        if encoded is None:
            raise StartupError(f"{source}:1: cannot be read: it does not exist")
        try:
            return parse(base64.b64decode(encoded).decode(), source)
        except UnicodeDecodeError as error:
            raise StartupError(f"{source}:1: cannot be read: it is not UTF-8") from error

    def _issued_records(self) -> Mapping[str, Issued]:
        if not self._issued_watch.wait(0):
            raise ClusterUnavailable("The API does not know its tokens yet, because Kubernetes has not answered.")
        secret = self._issued_secret.seen_by(self._issued_watch)
        with self._lock:
            if secret is not self._issued_seen:
                self._issued_seen = secret
                self._issued = all_of(decoded((secret or {}).get("data") or {}), self._report)
            return self._issued

    def _report(self, key: str, error: str) -> None:
        """Log an invalid record, but only once."""
        if (key, error) not in self._reported:
            self._reported.add((key, error))
            log.warning("ignoring an issued token or login link that cannot be used: %s", error)

    # -- writes --------------------------------------------------------------------------------------------

    def _write_uses(self) -> None:
        while True:
            self._used.wait()
            time.sleep(_random.uniform(*USES_SECONDS))
            self._used.clear()
            try:
                self.write_uses()
            except Exception:
                log.exception("could not save when tokens were last used")


def watched_tokens(settings: Settings) -> WatchedTokens | None:
    """The tokens in Kubernetes, or None if there is a file of tokens; raises StartupError if they are invalid."""
    if settings.tokens_file or not settings.tokens_secret:
        return None
    tokens = WatchedTokens(settings)
    tokens.start()
    return tokens


def current_hour() -> str:
    """The start of the current hour, in RFC 3339."""
    return stamp(datetime.now(UTC).replace(minute=0, second=0))
