"""What is told of limits and kinds."""

from __future__ import annotations

from typing import Any

from lithops_mini.emulators.front import Response, json_response
from lithops_mini.emulators.openwhisk.asked import Asked, not_allowed
from lithops_mini.emulators.openwhisk.entities import KIND
from lithops_mini.emulators.openwhisk.refusals import Refused
from lithops_mini.emulators.openwhisk.settings import PAYLOAD_LIMIT, Limits

API = "/api/v1"


def describe(limits: Limits) -> dict[str, Any]:
    """What the root of the server tells of it to everybody."""
    megabyte = 1 << 20
    ranges = {
        "min_action_duration": limits.min_timeout,
        "max_action_duration": limits.max_timeout,
        "min_action_memory": limits.min_memory * megabyte,
        "max_action_memory": limits.max_memory * megabyte,
        "min_action_logs": 0,
        "max_action_logs": limits.max_logs * megabyte,
    }
    runtime = {"kind": KIND, "image": "python", "deprecated": False, "default": True}
    return {
        "description": "OpenWhisk",
        "api_paths": [API],
        "limits": {
            "actions_per_minute": limits.per_minute,
            "triggers_per_minute": limits.per_minute,
            "concurrent_actions": limits.concurrent,
            "sequence_length": 50,
            **ranges,
            **{f"default_{name}": each for name, each in ranges.items()},
        },
        "runtimes": {"python": [{**runtime, "attached": True, "requireMain": False}]},
    }


def namespace_limits(asked: Asked, limits: Limits) -> Response:
    """What a namespace may use. ``Refused`` for anything but that."""
    if asked.request.method != "GET":
        raise not_allowed("GET")
    if asked.names:
        raise Refused(400, "Inner entity level routes for limits are not yet implemented.")
    asked.own()
    found = {
        "invocationsPerMinute": limits.per_minute,
        "concurrentInvocations": limits.concurrent,
        "firesPerMinute": limits.per_minute,
        "minActionMemory": limits.min_memory,
        "maxActionMemory": limits.max_memory,
        "minActionLogs": 0,
        "maxActionLogs": limits.max_logs,
        "minActionTimeout": limits.min_timeout,
        "maxActionTimeout": limits.max_timeout,
        "minActionConcurrency": 1,
        "maxActionConcurrency": 1,
        "maxParameterSize": f"{PAYLOAD_LIMIT >> 20} MB",
        "maxActionInstances": limits.concurrent,
    }
    return json_response(200, found)
