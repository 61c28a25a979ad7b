"""What an emulator tells of itself, and lets itself be told, below a path that is no cloud's."""

from __future__ import annotations

import json
import resource
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from lithops_mini.emulators.front import Request, Response, json_response
from lithops_mini.errors import ConfigError

OWN = "/_emulator/"
"""The beginning of such paths."""

Actions = Mapping[tuple[str, str], Callable[[Any], Any]]
"""By method and name; each is called with the request's JSON, ``{}`` if it has none."""


def control(request: Request, actions: Actions) -> Response:
    """The answer of the action that is asked for: JSON."""
    action = actions.get((request.method, request.path.removeprefix(OWN)))
    if action is None:
        names = ", ".join(f"{method} {OWN}{name}" for method, name in actions)
        return json_response(404, {"error": f"there is no {request.method} {request.path}; there are {names}"})
    try:
        return json_response(200, action(json.loads(request.body or b"{}")))
    except (ConfigError, ValueError) as error:
        return json_response(400, {"error": str(error)})


def usual(
    faults: Callable[[Any], Any], limits: Callable[[Any], Any], state: Callable[[], Any], requests: Counter[str]
) -> dict[tuple[str, str], Callable[[Any], Any]]:
    """What every emulator tells and takes. ``faults`` and ``limits`` change some of them, and return all."""
    return {
        ("GET", "faults"): lambda _: faults({}),
        ("PUT", "faults"): faults,
        ("GET", "limits"): lambda _: limits({}),
        ("PUT", "limits"): limits,
        ("GET", "state"): lambda _: state(),
        ("GET", "requests"): lambda _: dict(sorted(requests.items())),
        ("DELETE", "requests"): lambda _: requests.clear(),
    }


def allow_many_files() -> None:
    """Take as many open files as may be had: a sandbox has half a dozen, a connection one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
