"""Assembles the Flask application from its collaborators."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from flask import Flask
from flask_smorest import Api  # type: ignore[import-untyped]

from service import __version__, errors
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
    """Create the application.

    Args:
        settings: The settings of this process.
        cluster: Reads Kubernetes.
        releases: Writes through Helm.
        accounts: The SFTP accounts; None if file access is not installed.
        tokens: The tokens; None to read them from `settings.tokens_file`.

    Raises:
        StartupError: A file or a setting is invalid; the message names the file and line, or the variable.
    """
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
    folders = [catalogue.BUILT_IN, *([settings.games_dir] if settings.games_dir else [])]
    chart = ChartValues(settings.chart_path)
    games_by_name = catalogue.load(*folders, chart=chart)
    _check_settings(settings, games_by_name, chart)
    context = Context(
        settings=settings,
        cluster=cluster,
        releases=releases,
        games=games_by_name,
        operator_values=operator_values.load(settings.server_values_file, games_by_name, chart),
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


def _check_settings(settings: Settings, games_by_name: Mapping[str, catalogue.Game], chart: ChartValues) -> None:
    """Raises StartupError for a setting that does not match the games or the chart."""
    for name in sorted(settings.accepted_eulas):
        if name not in games_by_name:
            raise errors.StartupError(f"ACCEPTED_EULAS: the game {name} {unknown(name, games_by_name)}")
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
    # The ports share the blueprint of the servers.
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
        """Register none, because flask-smorest's drop `Allow` on a 405 and do not answer with problem+json."""
