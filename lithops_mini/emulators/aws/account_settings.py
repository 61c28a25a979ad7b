"""Lambda's GetAccountSettings: what an account may have in a region, and what it has."""

from __future__ import annotations

import json

from lithops_mini.emulators.aws import functions
from lithops_mini.emulators.aws.deployments import UNZIPPED_LIMIT, ZIP_LIMIT
from lithops_mini.emulators.aws.settings import Limits
from lithops_mini.emulators.front import Response

_CODE_LIMIT = 75 * 1024**3  # bytes of all functions and layers together: published, and not enforced here


def describe(region: str, limits: Limits) -> Response:
    """The answer: concurrency is what invocations in this region are held to at this moment."""
    count, size = functions.deployed(region)
    reserved = sum(functions.reserved(region).values())
    body = {
        "AccountLimit": {
            "TotalCodeSize": _CODE_LIMIT,
            "CodeSizeUnzipped": UNZIPPED_LIMIT,
            "CodeSizeZipped": ZIP_LIMIT,
            "ConcurrentExecutions": limits.concurrency,
            "UnreservedConcurrentExecutions": max(0, limits.concurrency - reserved),
        },
        "AccountUsage": {"TotalCodeSize": size, "FunctionCount": count},
    }
    return Response(200, (("Content-Type", "application/json"),), json.dumps(body).encode())
