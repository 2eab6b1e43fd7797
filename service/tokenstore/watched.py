"""The tokens as two Secrets of the API's own namespace have them, known from a watch of each.

One is the operator's, with the file `tokens.json`; the other is the API's, with a key for each token that it has given
out. A change counts on every replica as soon as its watch hears of it, and while Kubernetes is away the last that was
heard stays good.

Rights that this needs, in the API's own namespace, of these two Secrets alone:

    both                get list watch
    the API's           patch
"""

from __future__ import annotations

import base64
import binascii
import logging
import random
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from service.errors import (
    ClusterContended,
    ClusterUnavailable,
    OperationFailed,
    Problem,
    StartupError,
    Unauthorized,
)
from service.kube.client import Conflict, Kube, path
from service.kube.times import stamp
from service.kube.types import Object
from service.kube.watch import Kind, Watch
from service.settings import Settings
from service.tokens import Token, digest_of, holder, parse
from service.tokenstore.records import TOKEN, Change, Issued, Records, all_of, token_key, written

log = logging.getLogger(__name__)
# The machine's own randomness, as in watch.py.
_random = random.SystemRandom()

FILE = "tokens.json"
SYNC_SECONDS = 3.0
TRIES, PAUSE = 8, 0.2
# The uses of so long a time are written down together: each write is of the whole Secret, as far as etcd goes.
USES_SECONDS = (30.0, 60.0)
# A watch here is of one object, where others have those of many servers.
_ONE = 0


class WatchedTokens:
    """Who may call. To be made after a fork. Safe to use from many threads."""

    def __init__(self, settings: Settings, kube: Kube | None = None) -> None:
        self._kube = kube or Kube(connections=8)
        self._namespace = settings.pod_namespace
        self._operators_name, self._issued_name = settings.tokens_secret, settings.issued_tokens_secret
        self._operators_watch, self._issued_watch = self._watch(self._operators_name), self._watch(self._issued_name)
        self._lock = threading.Lock()
        self._operators: tuple[Token, ...] | None = None
        self._operators_seen: Object | None = None
        self._issued: Mapping[str, Issued] = {}
        self._issued_seen: Object | None = None
        self._told: set[tuple[str, str]] = set()
        self._uses: set[str] = set()
        self._used = threading.Event()

    def start(self) -> None:
        """Read the operator's tokens, and watch. Raises StartupError where they cannot be used."""
        try:
            self._operators = self._parsed(self._kube.get(self._path(self._operators_name)))
        except ClusterUnavailable as problem:
            # As ever while Kubernetes is away, it answers: here with 503, until the watch has heard who may call.
            log.warning("cannot read the operator's tokens yet: %s", problem.detail)
        self._operators_watch.start()
        self._issued_watch.start()
        # Waited for here, and never by a call: those of strangers would hold all threads.
        self._issued_watch.wait(SYNC_SECONDS)
        threading.Thread(target=self._write_uses, name="uses of tokens", daemon=True).start()

    def caller(self, authorization: str | None) -> Token:
        """The token in an Authorization header; raises Unauthorized without a valid one."""
        digest = digest_of(authorization)
        with suppress(Unauthorized):
            return holder(self.operators(), digest)
        issued = self._issued_known()
        token = holder((one.token for key, one in issued.items() if key.startswith(TOKEN)), digest)
        if issued[token_key(token.name)].last_used != this_hour():
            self._uses.add(token_key(token.name))
            self._used.set()
        return token

    def operators(self) -> tuple[Token, ...]:
        """The tokens that the operator has given out; raises ClusterUnavailable while nobody knows."""
        secret = self._operators_watch.of(_ONE).get(self._operators_name)
        with self._lock:
            if secret is not None and secret is not self._operators_seen:
                self._operators_seen = secret
                self._take(secret)
            if self._operators is None:
                raise ClusterUnavailable("The API does not know its tokens yet, because Kubernetes has not answered.")
            return self._operators

    def issued(self) -> Records:
        """The records of the tokens and links given out, as they are now."""
        return self._read()[0]

    def heard_of(self, key: str) -> bool:
        """Whether there is such a record, as the watch last said; this costs nothing."""
        return key in self._issued_known()

    def change(self, change: Change) -> None:
        """Write what `change` gives; of two replicas that write at once, the second looks again."""
        for _ in range(TRIES):
            records, version = self._read()
            changes = change(records)
            if not changes:
                return
            data = {key: None if text is None else _packed(text) for key, text in changes.items()}
            try:
                body = {"metadata": {"resourceVersion": version}, "data": data}
                if self._kube.merge(self._path(self._issued_name), body) is None:
                    raise self._missing()
                return
            except Conflict:
                time.sleep(_random.uniform(0, PAUSE))
        raise ClusterContended()

    def write_uses(self) -> None:
        """Write down which tokens have been used, where no replica has done so for this hour."""
        noted, self._uses = self._uses, set()
        now = this_hour()

        def used(records: Records) -> dict[str, str | None]:
            known = all_of({key: records[key] for key in noted if key in records})
            return {key: written(replace(one, last_used=now)) for key, one in known.items() if one.last_used != now}

        try:
            self.change(used)
        except Problem as problem:
            log.warning("could not save when tokens were last used: %s", problem.detail)

    # -- what was heard ------------------------------------------------------------------------------------

    def _watch(self, name: str) -> Watch:
        collection = path("v1", self._namespace, "secrets")
        return Watch(self._kube, Kind(collection, "", _trim, lambda _: _ONE, fields=f"metadata.name={name}"))

    def _take(self, secret: Object) -> None:
        try:
            tokens = self._parsed(secret)
        except StartupError:
            # Locking everybody out over a slip of the pen helps nobody; the old tokens stay good.
            log.exception("cannot use the operator's changed tokens; keeping the previous tokens")
            return
        if tokens != self._operators:
            self._operators = tokens
            log.info("reloaded the operator's tokens: %s", ", ".join(token.name for token in tokens))

    def _parsed(self, secret: Object | None) -> tuple[Token, ...]:
        source = f"Secret {self._namespace}/{self._operators_name}: {FILE}"
        packed = ((secret or {}).get("data") or {}).get(FILE)
        if packed is None:
            raise StartupError(f"{source}:1: cannot be read: it does not exist")
        try:
            return parse(base64.b64decode(packed).decode(), source)
        except UnicodeDecodeError as error:
            raise StartupError(f"{source}:1: cannot be read: it is not UTF-8") from error

    def _issued_known(self) -> Mapping[str, Issued]:
        if not self._issued_watch.wait(0):
            raise ClusterUnavailable("The API does not know its tokens yet, because Kubernetes has not answered.")
        secret = self._issued_watch.of(_ONE).get(self._issued_name)
        with self._lock:
            if secret is not self._issued_seen:
                self._issued_seen = secret
                self._issued = all_of(_records(secret), self._bad)
            return self._issued

    def _bad(self, key: str, why: str) -> None:
        if (key, why) not in self._told:
            self._told.add((key, why))
            log.warning("ignoring an issued token or login link that cannot be used: %s", why)

    # -- what is written -----------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return path("v1", self._namespace, "secrets", name)

    def _read(self) -> tuple[Records, str]:
        secret = self._kube.get(self._path(self._issued_name))
        if secret is None:
            raise self._missing()
        return _records(secret), secret["metadata"]["resourceVersion"]

    def _missing(self) -> OperationFailed:
        log.error(
            "the Secret %s/%s does not exist; a helm upgrade creates it again",
            self._namespace,
            self._issued_name,
        )
        return OperationFailed("The Secret for issued tokens does not exist; the operator must create it again.")

    def _write_uses(self) -> None:
        while True:
            self._used.wait()
            time.sleep(_random.uniform(*USES_SECONDS))
            self._used.clear()
            try:
                self.write_uses()
            except Exception:
                log.exception("could not save when tokens were last used")


def this_hour() -> str:
    """When the present hour began, as records have it."""
    return stamp(datetime.now(UTC).replace(minute=0, second=0))


def _trim(secret: Object) -> Object:
    return {"metadata": {"name": secret["metadata"]["name"]}, "data": secret.get("data") or {}}


def _records(secret: Object | None) -> Records:
    found = {}
    for key, packed in ((secret or {}).get("data") or {}).items():
        try:
            found[key] = base64.b64decode(packed).decode()
        except (UnicodeDecodeError, binascii.Error):
            # No record, which says so as it is read.
            found[key] = ""
    return found


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
