"""What OpenWhisk makes of the answers of a sandbox."""

from __future__ import annotations

import json
from typing import Any

from lithops_mini.emulators.openwhisk.activations import (
    APPLICATION_ERROR,
    DEVELOPER_ERROR,
    SUCCESS,
    Outcome,
    failed,
)
from lithops_mini.emulators.openwhisk.sandbox import Answer, Sandbox
from lithops_mini.emulators.openwhisk.settings import PAYLOAD_LIMIT

_DYING = 2.0  # seconds until it is known how a sandbox has ended that does not answer


def of_init(answer: Answer) -> Outcome | None:
    """What comes of an answer to /init; ``None`` if the action can run."""
    if answer.length > PAYLOAD_LIMIT:
        return failed(DEVELOPER_ERROR, _too_long(answer), answer.length)
    if answer.status == 200:
        return None
    text, value = _parsed(answer)
    error = (
        value["error"] if isinstance(value, dict) and "error" in value else _told("failed during initialization", text)
    )
    return failed(DEVELOPER_ERROR, error, len(text))


def of_run(answer: Answer) -> Outcome:
    """What comes of an answer to /run."""
    if answer.length > PAYLOAD_LIMIT:
        return failed(APPLICATION_ERROR, _too_long(answer), answer.length)
    text, value = _parsed(answer)
    invalid = _told("did not produce a valid JSON or JSON Array response", text)
    if isinstance(value, dict) and "error" in value:
        return failed(APPLICATION_ERROR if answer.status == 200 else DEVELOPER_ERROR, value["error"], len(text))
    if answer.status == 200 and isinstance(value, (dict, list)):
        return Outcome(SUCCESS, value, len(text))
    return failed(DEVELOPER_ERROR, invalid, len(text))


def of_end(sandbox: Sandbox, doing: str) -> Outcome:
    """What comes of no answer. ``doing``: ``"init"`` or ``"run"``."""
    sandbox.ended.wait(_DYING)
    if sandbox.end is not None and sandbox.end.out_of_memory:
        return failed(DEVELOPER_ERROR, "The action exhausted its memory and was aborted.")
    if doing == "init":
        return failed(DEVELOPER_ERROR, "The action did not initialize and exited unexpectedly.")
    return failed(DEVELOPER_ERROR, "The action did not produce a valid response and exited unexpectedly.")


def of_timeout(limit: int, doing: str) -> Outcome:
    """What comes of an answer that takes more than ``limit`` milliseconds."""
    when = " during initialization." if doing == "init" else "."
    return failed(DEVELOPER_ERROR, f"The action exceeded its time limits of {limit} milliseconds{when}")


def _parsed(answer: Answer) -> tuple[str, Any]:
    text = answer.body.decode(errors="replace")
    try:
        return text, json.loads(text)
    except ValueError:
        return text, None


def _told(what: str, text: str) -> str:
    return f"The action {what}" + (f": {text}" if text else ".")


def _too_long(answer: Answer) -> str:
    kept = answer.body.decode(errors="replace")
    return (
        f"The action produced a response that exceeded the allowed length: {answer.length} > {PAYLOAD_LIMIT} bytes. "
        f"The truncated response was: {kept}"
    )
