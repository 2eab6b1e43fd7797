"""Pages for people: the API's reference at /docs, and what each problem means at /problems/<slug>.

Made from the OpenAPI document by a template of our own: no script, and not one link that leads outside, so
the pages work in a cluster that reaches nothing.
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
    """Text, or a schema, with its links to problems and to other schemas as links."""
    plain = text if isinstance(text, str) else json.dumps(text, indent=2, ensure_ascii=False)
    linked = re.sub(r"\[([a-z-]+)\]\((/problems/[a-z-]+)\)", r'<a href="\2">\1</a>', str(escape(plain)))
    linked = re.sub(r"#/components/schemas/([A-Za-z]+)", r'<a href="#\1">\1</a>', linked)
    # Both expressions ran over escaped text and put in nothing but letters, dashes and slashes.
    return Markup(linked)  # noqa: S704


def _page(template: str, **facts: Any) -> Response:
    page = Response(render_template(template, **facts), mimetype="text/html")
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
    """The reference, from the OpenAPI document."""
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
