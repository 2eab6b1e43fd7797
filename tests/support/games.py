"""What the built-in games render, for several tests."""

from __future__ import annotations

#: The environment of a Minecraft server without any option.
MINECRAFT = {
    "EULA": "TRUE",
    "STOP_SERVER_ANNOUNCE_DELAY": "10",
    "SERVER_IP": "",
    "SERVER_PORT": "25565",
    "ENABLE_STATUS": "TRUE",
}
