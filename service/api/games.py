"""The call that lists the games, for shops that offer them."""

from __future__ import annotations

from typing import Any

from service.api import schemas
from service.api.context import context
from service.web.parsing import Blueprint
from service.web.routes import access

blueprint = Blueprint("games", __name__, url_prefix="/api/v1/game", description="Games that the API can host")


@blueprint.route("", methods=["GET"])
@access("server:read")
@blueprint.response(200, schemas.GamesAnswer)
def list_games() -> dict[str, Any]:
    """List the games, each with its ports and the JSON Schema of its options"""
    games, accepted = context().games, context().settings.accepted_eulas
    return {
        "success": True,
        "games": [
            {
                "name": game.name,
                "title": game.title,
                "description": game.description,
                "eula": game.eula,
                "eula_accepted": game.eula is None or game.name in accepted,
                "ports": game.ports,
                "options": game.schema,
            }
            for game in games.values()
        ],
    }
