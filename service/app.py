"""The Flask application, put together from its collaborators."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Flask, Response, g, request
from flask_smorest import Api  # type: ignore[import-untyped]
from werkzeug.routing import BaseConverter

from service import errors
from service.api import disks, document, files, games, health, schemas, servers
from service.configfile import unknown
from service.games import catalogue, operator_values
from service.operations.context import Context
from service.operations.interfaces import Accounts, Cluster, Releases
from service.servers.chartvalues import ChartValues
from service.servers.spec import record_of_objects
from service.servers.state import state_of
from service.settings import Settings
from service.telemetry import logs, metrics
from service.web import auth, problems, reference

log = logging.getLogger(__name__)
access = logging.getLogger("service.access")

LARGEST_BODY = 64 * 1024
_PAGE = 500
# Every call holds one of gunicorn's 48 threads for as long as it takes: an operation for seconds, a read for as long
# while Kubernetes hangs. More than these are turned away at once, rather than wait in a queue that only grows; so
# reads find a thread beside all the operations, and probes beside everything.
OPERATIONS_AT_ONCE = 24
CALLS_AT_ONCE = 40


def _whole_numbers(largest: int) -> str:
    """A regular expression of the numbers from 1 to `largest`, in ASCII and without a leading zero."""
    digits = str(largest)
    shorter = f"[1-9][0-9]{{0,{len(digits) - 2}}}"
    # Of the same length: the same up to some digit, which is smaller, and then anything.
    smaller = [
        f"{digits[:at]}[{0 if at else 1}-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if int(digit) > (0 if at else 1)
    ]
    return f"(?:{'|'.join([*smaller, digits, shorter])})"


class ServerId(BaseConverter):
    """A server's id in a path: anything that is none is no address at all, so it answers 404.

    The range is in the expression, as an id that only `to_python` refused would answer 405 (werkzeug takes the
    routes of other methods for matches).
    """

    regex = _whole_numbers(schemas.LARGEST_ID)

    def to_python(self, value: str) -> int:
        return int(value)


def create_app(settings: Settings, cluster: Cluster, releases: Releases, accounts: Accounts | None = None) -> Flask:
    """The application, without `accounts` one that knows no file access.

    Raises StartupError, with file and line, where a file it depends on is broken.
    """
    app = Flask("service", static_folder=None)
    app.config.update(
        API_TITLE="Game server API",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        MAX_CONTENT_LENGTH=LARGEST_BODY,
        PROVIDE_AUTOMATIC_OPTIONS=False,
        TRAP_HTTP_EXCEPTIONS=False,
        # An exception is answered as a problem, in tests too.
        PROPAGATE_EXCEPTIONS=False,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.converters["id"] = ServerId
    folders = [catalogue.BUILT_IN, *([settings.games_dir] if settings.games_dir else [])]
    chart = ChartValues(settings.chart_path)
    catalogue_ = catalogue.load(*folders, chart=chart)
    _check_against(settings, catalogue_, chart)
    context = Context(
        settings=settings,
        cluster=cluster,
        releases=releases,
        games=catalogue_,
        operator_values=operator_values.load(settings.server_values_file, catalogue_, chart),
        tokens=auth.Tokens(settings.tokens_file),
        accounts=accounts if settings.sftp_namespace else None,
    )
    app.extensions["gameserver"] = context
    _register_hooks(app, context)
    problems.register(app)
    _register_routes(app, context)
    return app


def _check_against(settings: Settings, catalogue_: Mapping[str, catalogue.Game], chart: ChartValues) -> None:
    """Raises StartupError for a setting that the games or the chart do not bear out."""
    for name in sorted(settings.accepted_eulas):
        if name not in catalogue_:
            raise errors.StartupError(f"ACCEPTED_EULAS: {name} is no game: it {unknown(name, catalogue_)}")
    for variable, size in (
        ("MAX_RAM_GB", {"ramGb": settings.max_ram_gb}),
        ("MAX_DISK_GB", {"diskGb": settings.max_disk_gb}),
    ):
        for mistake in chart.refused(size):
            raise errors.StartupError(f"{variable}: {mistake.message}")


def count_servers(cluster: Cluster) -> Iterator[Mapping[str, str]]:
    """Game and state of every server, for /metrics."""
    continue_: str | None = None
    while True:
        page, continue_ = cluster.servers(_PAGE, continue_)
        for objects in page:
            record = record_of_objects(objects)
            yield {"game": record.game if record else "", "state": state_of(objects).state}
        if continue_ is None:
            return


def _register_routes(app: Flask, context: Context) -> None:
    api = _Api(
        app,
        spec_kwargs={
            "info": {"description": "Hosts game servers on Kubernetes, each one a Helm release."},
            "security": [{"bearer": []}],
        },
    )
    api.register_converter(ServerId, _id_schema)
    api.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    api.spec.components.schema("ProblemAnswer", schema=schemas.ProblemAnswer)
    for blueprint in (health.blueprint, servers.blueprint, files.blueprint, disks.blueprint, games.blueprint):
        api.register_blueprint(blueprint)
    app.register_blueprint(reference.blueprint)
    for rule in app.url_map.iter_rules():
        if not hasattr(app.view_functions[rule.endpoint], "needs"):
            raise AssertionError(f"{rule.rule} does not say which scope it needs, or that it is public")
    app.extensions["openapi"] = document.finished(api.spec.to_dict(), app, context.settings, context.games)


class _Api(Api):  # type: ignore[misc]
    def _register_error_handlers(self) -> None:
        """None of flask-smorest's: they drop `Allow` on a 405, and are no problem+json."""


def _id_schema(converter: Any) -> dict[str, Any]:
    return {"type": "integer", "format": "int64", "minimum": 1, "maximum": schemas.LARGEST_ID}


# -- around every request ----------------------------------------------------------------------------------


def _register_hooks(app: Flask, context: Context) -> None:
    calls = threading.BoundedSemaphore(CALLS_AT_ONCE)
    operations = threading.BoundedSemaphore(OPERATIONS_AT_ONCE)

    def take(places: threading.BoundedSemaphore) -> None:
        if not places.acquire(blocking=False):
            raise errors.TooManyOperations("This replica is busy; others may not be.", retry_after=2)
        g.setdefault("places", []).append(places)

    @app.teardown_request
    def done(error: BaseException | None) -> None:
        for places in g.pop("places", []):
            places.release()

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()
        logs.request_id.set(logs.id_of_request(request.headers.get("X-Request-Id")))
        view = app.view_functions.get(request.endpoint or "")
        # An address that does not exist needs a token too: so no route can be forgotten.
        needs = getattr(view, "needs", "") if view else ""
        if needs is None:
            return
        g.token = context.tokens.caller(request.headers.get("Authorization"))
        if needs and needs not in g.token.scopes:
            raise errors.MissingScope(f"This call needs the scope `{needs}`, which the token {g.token.name} lacks.")
        take(calls)
        if needs in ("operate", "admin") and request.method != "GET":
            take(operations)

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = logs.request_id.get()
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        if health.draining.is_set():
            # For other servers than gunicorn, which says this by itself (see gunicorn.conf.py).
            response.headers["Connection"] = "close"
        _write_down(response)
        return response


def _write_down(response: Response) -> None:
    seconds = time.perf_counter() - g.get("began", time.perf_counter())
    route = request.url_rule.rule if request.url_rule else "none"
    metrics.request_done(route, request.method, response.status_code, seconds)
    token = g.get("token")
    outcome = request.environ.get("gameserver.outcome", "ok")
    id = (request.view_args or {}).get("id")
    # Of an address that is none, nothing is written down: a token may have been put there by mistake.
    place = request.path if id is not None else route
    view = request.endpoint or ""
    action = re.sub(r".*\.", "", view)
    if id is not None and (request.method != "GET" or action == "get_rcon") and action != "patch_port":
        logs.audit(token=token.name if token else "", action=action, server=id, outcome=outcome)
    fields = {
        "method": request.method,
        "route": route,
        "path": place,
        "status": response.status_code,
        "ms": round(seconds * 1000, 1),
        "token": token.name if token else None,
        "outcome": outcome,
    }
    level = logging.DEBUG if action in ("healthcheck", "readyz") and response.status_code < 400 else logging.INFO
    access.log(level, "%s %s %d", request.method, place, response.status_code, extra={"fields": fields})
