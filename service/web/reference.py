"""HTML pages: the API's reference at /docs, and the meaning of each problem at /problems/<slug>.

Our own templates render the OpenAPI document. The pages contain no scripts and no external links, so they work in a
cluster without Internet access.
"""

from __future__ import annotations

import json
import re
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, render_template
from markupsafe import Markup, escape

from service.errors import PROBLEMS, NotFound
from service.web.routes import public

blueprint = Blueprint("docs", __name__, template_folder="templates")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


@blueprint.app_template_filter("linked")
def _linked(text: object) -> Markup:
    """A text or a schema as HTML, with links to the problems and schemas that it mentions."""
    plain = text if isinstance(text, str) else json.dumps(text, indent=2, ensure_ascii=False)
    linked = re.sub(r"\[([a-z-]+)\]\((/problems/[a-z-]+)\)", r'<a href="\2">\1</a>', str(escape(plain)))
    linked = re.sub(r"#/components/schemas/([A-Za-z]+)", r'<a href="#\1">\1</a>', linked)
    # Safe: both expressions run on escaped text and insert only letters, dashes and slashes.
    return Markup(linked)  # noqa: S704


def _page(template: str, **variables: Any) -> Response:
    page = Response(render_template(template, **variables), mimetype="text/html")
    page.headers["Content-Security-Policy"] = _POLICY
    return page


@blueprint.route("/openapi.json", methods=["GET"])
@public
def openapi() -> Response:
    """The OpenAPI document."""
    return jsonify(current_app.extensions["openapi"])


@blueprint.route("/docs", methods=["GET"])
@public
def docs() -> Response:
    """The reference, rendered from the OpenAPI document."""
    return _page("docs.html", document=current_app.extensions["openapi"])


@blueprint.route("/problems/", methods=["GET"])
@public
def problems() -> Response:
    """All kinds of problems."""
    return _page("problems.html", problems=sorted(PROBLEMS.values(), key=lambda kind: kind.slug))


@blueprint.route("/problems/<slug>", methods=["GET"])
@public
def problem(slug: str) -> Response:
    """What one kind of problem means."""
    if slug not in PROBLEMS:
        raise NotFound()
    return _page("problems.html", problems=[PROBLEMS[slug]])
