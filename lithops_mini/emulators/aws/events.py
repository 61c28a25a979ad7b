"""Asynchronous invocations: a queue of its own, more tries, and a place for what came to nothing."""

from __future__ import annotations

import heapq
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from moto.awslambda.exceptions import UnknownFunctionException
from moto.awslambda.models import LambdaFunction
from moto.s3.models import s3_backends

from lithops_mini.emulators.aws import functions
from lithops_mini.emulators.aws.account import ACCOUNT
from lithops_mini.emulators.aws.faults import Dice
from lithops_mini.emulators.aws.functions import Function
from lithops_mini.emulators.aws.lambda_data_plane import DataPlane, Reply, Throttled
from lithops_mini.emulators.aws.sandbox import NoRuntime

_ATTEMPTS = 2  # more tries, and seconds, if nothing is configured: AWS's own
_AGE = 6 * 3600
_BUSY_FIRST, _BUSY_MOST = 1.0, 300.0  # seconds until one that was throttled is tried again

MayWrite = Callable[[Function, str, str], bool]


@dataclass(frozen=True)
class Event:
    """An event on its way to a function."""

    region: str
    name: str
    qualifier: str | None
    payload: bytes
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    since: float = field(default_factory=time.time)
    failures: int = 0
    throttles: int = 0


class EventQueue:
    """Delivers events in threads of its own. ``close`` forgets those that wait.

    ``may_write``: whether the role of a function may put an object into a bucket.
    """

    def __init__(self, plane: DataPlane, dice: Dice, may_write: MayWrite) -> None:
        self._plane = plane
        self._dice = dice
        self._may_write = may_write
        self._waiting: list[tuple[float, int, Event]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._running = 0
        threading.Thread(target=self._deliver, name="events", daemon=True).start()

    def put(self, event: Event) -> None:
        """Take an event: it is delivered once, or as often as the dice say."""
        for _ in range(self._dice.copies()):
            self._later(event, 0.0)

    def serve_services(self) -> None:
        """Take what moto's other services send to functions: EventBridge, notifications of S3, and the like."""

        def invoke(record: LambdaFunction, body: Any, _headers: Any, _response_headers: Any) -> bytes:
            payload = body if isinstance(body, bytes) else body.encode()
            self.put(Event(record.region, record.function_name, str(record.version), payload or b"{}"))
            return b""

        LambdaFunction.invoke = invoke  # type: ignore[assignment,method-assign]

    def pending(self) -> int:
        """How many events wait or run."""
        with self._changed:
            return len(self._waiting) + self._running

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _later(self, event: Event, seconds: float) -> None:
        with self._changed:
            heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._numbers), event))
            self._changed.notify()

    def _deliver(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not (self._waiting and self._waiting[0][0] <= time.monotonic()):
                    self._changed.wait(self._waiting[0][0] - time.monotonic() if self._waiting else None)
                if self._closed:
                    return
                _, _, event = heapq.heappop(self._waiting)
                self._running += 1
            threading.Thread(target=self._try, args=(event,), name="event", daemon=True).start()

    def _try(self, event: Event) -> None:
        try:
            self._invoke(event)
        finally:
            with self._changed:
                self._running -= 1

    def _invoke(self, event: Event) -> None:
        try:
            function, record = functions.find(event.region, event.name, event.qualifier)
        except UnknownFunctionException:  # deleted meanwhile: its events go with it
            return
        config = functions.event_config(record)
        age = config.get("MaximumEventAgeInSeconds", _AGE)
        try:
            reply = self._plane.invoke(function, event.payload, event.request_id)
        except Throttled:
            wait = min(_BUSY_FIRST * 2**event.throttles, _BUSY_MOST)
            if time.time() + wait - event.since > age:
                self._give_up(event, function, config, "EventAgeExceeded", None)
            else:
                self._later(replace(event, throttles=event.throttles + 1), wait)
            return
        except NoRuntime:
            self._give_up(event, function, config, "RetriesExhausted", None)
            return
        if not reply.error:
            return
        event = replace(event, failures=event.failures + 1)
        wait = self._plane.limits.retry_wait * event.failures
        if event.failures > config.get("MaximumRetryAttempts", _ATTEMPTS):
            self._give_up(event, function, config, "RetriesExhausted", reply)
        elif time.time() + wait - event.since > age:
            self._give_up(event, function, config, "EventAgeExceeded", reply)
        else:
            self._later(event, wait)

    def _give_up(self, event: Event, function: Function, config: Any, condition: str, reply: Reply | None) -> None:
        """Tell the destination for failures, if there is one and the function's role may write there."""
        destination = config.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination", "")
        bucket = destination.removeprefix("arn:aws:s3:::")
        if bucket == destination:
            return
        now = datetime.now(UTC)
        key = f"aws/lambda/async/{function.name}/{now:%Y/%m/%d}/{now:%Y-%m-%dT%H.%M.%S}-{uuid.uuid4()}"
        if self._may_write(function, bucket, key):
            record = json.dumps(_record(event, function, now, condition, reply)).encode()
            s3_backends[ACCOUNT]["aws"].put_object(bucket, key, record)


def _record(event: Event, function: Function, now: datetime, condition: str, reply: Reply | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03}Z",
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": f"{function.arn}:$LATEST" if function.version == "$LATEST" else function.arn,
            "condition": condition,
            "approximateInvokeCount": event.failures,
        },
        "requestPayload": json.loads(event.payload),
    }
    if reply is not None:
        record["responseContext"] = {"statusCode": 200, "executedVersion": reply.version, "functionError": "Unhandled"}
        record["responsePayload"] = json.loads(reply.payload)
    return record
