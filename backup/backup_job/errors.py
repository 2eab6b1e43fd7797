"""Why a Job failed, in a word for the controller and in a sentence for a person."""

from __future__ import annotations


class JobFailed(Exception):
    """The Job's work was not done.

    Attributes:
        code: A word that the controller knows, such as `store-unreachable`.
        message: A sentence for the operator. It names no customer's file, and no secret.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
