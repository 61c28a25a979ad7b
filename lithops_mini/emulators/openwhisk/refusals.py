"""Refusals, with the statuses and texts of OpenWhisk's controller."""

from __future__ import annotations

NOT_FOUND = "The requested resource does not exist."
NO_ROUTE = "The requested resource could not be found."
NOT_IN_COLLECTION = "Resource by this name exists but is not in this collection."
NO_CREDENTIALS = "The resource requires authentication, which was not supplied with the request"
WRONG_CREDENTIALS = "The supplied authentication is invalid"
TOO_LATE = "The server timed out waiting for the client's request."
TOO_LARGE = "The request content was too large."


class Refused(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


def malformed(text: str) -> Refused:
    """The body is not what it must be."""
    return Refused(400, f"The request content was malformed:\n{text}")


def malformed_query(name: str, text: str) -> Refused:
    """A parameter of the URL is not what it must be."""
    return Refused(400, f"The query parameter '{name}' was malformed:\n{text}")


def no_access(resource: str) -> Refused:
    return Refused(403, f"The supplied authentication is not authorized to access '{resource}'.")


def too_large(field: str, size: int, allowed: int) -> Refused:
    return Refused(413, f"{field} larger than allowed: {size} > {allowed} bytes.")
