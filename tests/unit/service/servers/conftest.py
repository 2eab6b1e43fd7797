"""What the tests of servers share."""

from __future__ import annotations

from datetime import timedelta

import pytest

from service.servers import reasons


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pods of these tests were deleted long ago; none is overdue, unless a test says so."""
    monkeypatch.setattr(reasons, "CLEANUP", timedelta(days=36_500))
