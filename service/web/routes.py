"""What each route asks of its callers, said where the route is declared.

The gate (`hooks.py`), the audit log, the OpenAPI document and the tests all read the one table made of it. A route
that says nothing here stops the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Flask

from service import errors
from service.access import Access, Subject

View = TypeVar("View", bound=Callable[..., Any])
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True)
class Route:
    """A line of the table: an address with its methods, what it asks, and the problems it may answer with."""

    rule: str
    methods: frozenset[str]
    endpoint: str
    access: Access
    problems: tuple[type[errors.Problem], ...] = ()

    @property
    def action(self) -> str:
        """The name of the call, as the audit log has it."""
        return self.endpoint.rpartition(".")[2]


def access(scope: str | None, subject: Subject = Subject.NONE, *, audited: bool = False) -> Callable[[View], View]:
    """Declare what a view asks of its callers: a scope, or None for nothing at all."""
    return _declared(Access(scope, subject, audited))


def public(view: View) -> View:
    """Declare that a view needs no token."""
    return _declared(Access(None))(view)


def problems(*kinds: type[errors.Problem]) -> Callable[[View], View]:
    """Declare the problems that a view answers with, beside those that all do. Belongs right above the function."""

    def mark(view: View) -> View:
        view.problems = kinds  # type: ignore[attr-defined]
        return view

    return mark


def table(app: Flask, others: Iterable[Route] = ()) -> tuple[Route, ...]:
    """All routes: the app's, and those served beside it; raises AssertionError for one that says too little."""
    routes = [
        Route(
            rule.rule,
            frozenset(rule.methods or ()) & METHODS,
            rule.endpoint,
            getattr(view, "access", None),  # type: ignore[arg-type]
            getattr(view, "problems", ()),
        )
        for rule in app.url_map.iter_rules()
        for view in (app.view_functions[rule.endpoint],)
    ]
    for route in (*routes, *others):
        if route.access is None:
            raise AssertionError(f"{route.rule} declares neither a scope nor that it is public")
        if ("<id:" in route.rule) != (route.access.subject is not Subject.NONE):
            raise AssertionError(f"{route.rule} does not declare what its id refers to")
    return (*routes, *others)


def _declared(declared: Access) -> Callable[[View], View]:
    def mark(view: View) -> View:
        view.access = declared  # type: ignore[attr-defined]
        return view

    return mark
