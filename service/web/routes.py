"""Declares what each route requires of its callers, next to the route itself.

`table` collects the declarations. The hooks, the audit log, the OpenAPI document and the tests read that table. The
service does not start with a route that declares nothing.
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
    """A route: its URL rule and methods, what it requires, and the problems that it may answer with."""

    rule: str
    methods: frozenset[str]
    endpoint: str
    access: Access
    problems: tuple[type[errors.Problem], ...] = ()

    @property
    def action(self) -> str:
        """The name of the call in the audit log."""
        return self.endpoint.rpartition(".")[2]


def access(scope: str | None, subject: Subject = Subject.NONE, *, audited: bool = False) -> Callable[[View], View]:
    """Declare what a view requires of its callers.

    Args:
        scope: The scope that the token needs, or None for a public view.
        subject: What the id in the path must name.
        audited: Whether each call leaves an audit line.
    """
    return _declare(Access(scope, subject, audited))


def public(view: View) -> View:
    """Declare that a view needs no token."""
    return _declare(Access(None))(view)


def problems(*kinds: type[errors.Problem]) -> Callable[[View], View]:
    """Declare the problems that a view may answer with, besides those of all views. Put it right above the function."""

    def mark(view: View) -> View:
        view.problems = kinds  # type: ignore[attr-defined]
        return view

    return mark


def table(app: Flask, others: Iterable[Route] = ()) -> tuple[Route, ...]:
    """All routes of the app, and the `others` that are served next to it.

    Raises AssertionError for a route that does not declare its access, or what its id refers to.
    """
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


def _declare(declaration: Access) -> Callable[[View], View]:
    def mark(view: View) -> View:
        view.access = declaration  # type: ignore[attr-defined]
        return view

    return mark
