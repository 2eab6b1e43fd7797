"""The Flask application, put together from its collaborators."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from flask import Flask
from flask_smorest import Api  # type: ignore[import-untyped]

from service import errors
from service.api import disks, document, files, games, health, ports, servers
from service.api import tokens as tokens_api
from service.api.converters import ServerId, id_schema
from service.configfile import unknown
from service.files.accounts import NoFileAccess
from service.games import catalogue, operator_values
from service.operations.context import Context
from service.operations.interfaces import Accounts, Cluster, Releases, Tokens
from service.operations.visibility import require_server
from service.servers.chartvalues import ChartValues
from service.settings import Settings
from service.tokens import TokensFile
from service.web import hooks, problems, reference, routes
from service.web.fields import ProblemAnswer

LARGEST_BODY = 64 * 1024


def create_app(
    settings: Settings,
    cluster: Cluster,
    releases: Releases,
    accounts: Accounts | None = None,
    tokens: Tokens | None = None,
) -> Flask:
    """The application: without `accounts` one that knows no file access, without `tokens` that of `TOKENS_FILE`.

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
        accounts=accounts if accounts and settings.sftp_namespace else NoFileAccess(),
        tokens=tokens or _tokens_file(settings),
    )
    app.extensions["gameserver"] = context
    problems.register(app)
    _register_routes(app, context)
    hooks.register(app, app.extensions["routes"], context.tokens, partial(require_server, context))
    return app


def _tokens_file(settings: Settings) -> TokensFile:
    if settings.tokens_file is None:
        raise errors.StartupError("TOKENS_FILE: set it or TOKENS_SECRET; without either, nobody could call the API")
    return TokensFile(settings.tokens_file)


def _check_against(settings: Settings, catalogue_: Mapping[str, catalogue.Game], chart: ChartValues) -> None:
    """Raises StartupError for a setting that the games or the chart do not bear out."""
    for name in sorted(settings.accepted_eulas):
        if name not in catalogue_:
            raise errors.StartupError(f"ACCEPTED_EULAS: the game {name} {unknown(name, catalogue_)}")
    for variable, size in (
        ("MAX_RAM_GB", {"ramGb": settings.max_ram_gb}),
        ("MAX_DISK_GB", {"diskGb": settings.max_disk_gb}),
    ):
        for mistake in chart.refused(size):
            raise errors.StartupError(f"{variable}: {mistake.message}")


def _register_routes(app: Flask, context: Context) -> None:
    api = _Api(
        app,
        spec_kwargs={
            "info": {"description": "Hosts game servers on Kubernetes. Each server is a Helm release."},
            "security": [{"bearer": []}],
        },
    )
    api.register_converter(ServerId, id_schema)
    api.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    api.spec.components.schema("ProblemAnswer", schema=ProblemAnswer)
    # That of the ports is the servers' own.
    modules = (health, servers, ports, files, disks, games, tokens_api)
    for blueprint in dict.fromkeys(module.blueprint for module in modules):
        api.register_blueprint(blueprint)
    app.register_blueprint(reference.blueprint)
    app.extensions["routes"] = routes.table(app)
    app.extensions["openapi"] = document.complete(
        api.spec.to_dict(), app.extensions["routes"], context.settings, context.games
    )


class _Api(Api):  # type: ignore[misc]
    def _register_error_handlers(self) -> None:
        """None of flask-smorest's: they drop `Allow` on a 405, and are no problem+json."""
