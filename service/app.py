"""Assembles the Flask application from its collaborators."""

from __future__ import annotations

from functools import partial

from flask import Flask
from flask_smorest import Api  # type: ignore[import-untyped]

from service import __version__
from service.api import (
    backups,
    console,
    disks,
    document,
    events,
    files,
    games,
    health,
    log,
    operations,
    ports,
    progress,
    recovery,
    schedules,
    servers,
)
from service.api import tokens as tokens_api
from service.api import webhooks as webhooks_api
from service.api.converters import (
    BackupId,
    Name,
    ServerId,
    WebhookName,
    backup_id_schema,
    id_schema,
    name_schema,
    webhook_name_schema,
)
from service.operations.context import Context
from service.operations.visibility import require_server
from service.web import hooks, problems, reference, routes
from service.web.fields import ProblemAnswer

LARGEST_BODY = 64 * 1024


def create_app(context: Context) -> Flask:
    """Create the application, which works with these collaborators."""
    app = Flask("service", static_folder=None)
    app.config.update(
        API_TITLE="Game server API",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.1.0",
        MAX_CONTENT_LENGTH=LARGEST_BODY,
        PROVIDE_AUTOMATIC_OPTIONS=False,
        TRAP_HTTP_EXCEPTIONS=False,
        # Answer exceptions with a problem, in tests too.
        PROPAGATE_EXCEPTIONS=False,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.converters["id"] = ServerId
    app.url_map.converters["name"] = Name
    app.url_map.converters["webhook"] = WebhookName
    app.url_map.converters["backup"] = BackupId
    app.extensions["gameserver"] = context
    problems.register(app)
    _register_routes(app, context)
    hooks.register(app, app.extensions["routes"], context.tokens, partial(require_server, context))
    return app


def _register_routes(app: Flask, context: Context) -> None:
    api = _Api(
        app,
        spec_kwargs={
            "info": {"description": "Hosts game servers on Kubernetes. Each server is a Helm release."},
            "security": [{"bearer": []}],
        },
    )
    api.register_converter(ServerId, id_schema)
    api.register_converter(Name, name_schema)
    api.register_converter(WebhookName, webhook_name_schema)
    api.register_converter(BackupId, backup_id_schema)
    api.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    api.spec.components.schema("ProblemAnswer", schema=ProblemAnswer)
    # The ports, the log and the progress share the blueprint of the servers.
    modules = (
        *(health, servers, ports, console, files, log, progress, disks, games),
        *(operations, events, schedules, backups, recovery, webhooks_api, tokens_api),
    )
    for blueprint in dict.fromkeys(module.blueprint for module in modules):
        api.register_blueprint(blueprint)
    app.register_blueprint(reference.blueprint)
    app.extensions["routes"] = routes.table(app)
    app.extensions["openapi"] = document.complete(
        api.spec.to_dict(), app.extensions["routes"], context.settings, context.games
    )


class _Api(Api):  # type: ignore[misc]
    def _register_error_handlers(self) -> None:
        """Register none, because flask-smorest's drop `Allow` on a 405 and do not answer with problem+json."""
