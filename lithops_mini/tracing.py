"""Jobs as OpenTelemetry traces: a span for each job, each call and each attempt, sent by OTLP over HTTP.

Spans are made when a job has ended, from the times that were noted anyway, in a thread of their own: no call waits for
a collector, and none fails with it. The SDK is imported when the first executor wants it.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lithops_mini.errors import ConfigError
from lithops_mini.failures import Failure
from lithops_mini.records import Attempt, CallStats

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger("lithops_mini")

_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_BATCH = 512  # spans in a request
_LINGER = 15.0  # seconds that ``close`` waits for a slow collector


@dataclass(frozen=True)
class EndedJob:
    """What is told of a job that has ended."""

    job_id: str
    function: str
    facts: Mapping[str, str]  # backend and so on
    calls: Sequence[CallStats]
    failures: Sequence[Failure]
    attempts: Sequence[Attempt]  # before those that counted
    parent: Context | None = field(default=None, repr=False)  # of the program that submitted it


def open_tracer(endpoint: str | None) -> SpanSender | None:
    """Return what sends spans to ``endpoint``, a collector's URL such as ``http://localhost:4318``.

    Default: where the variables ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` and ``OTEL_EXPORTER_OTLP_ENDPOINT`` say, and
    ``None`` if neither is set, if ``OTEL_SDK_DISABLED`` is true, or the SDK is not installed. ``ConfigError`` if an
    endpoint is given and the SDK is not installed.
    """
    if endpoint is None and not any(os.environ.get(name) for name in _VARIABLES):
        return None
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        return SpanSender(endpoint)
    except ImportError as error:
        what = "traces need OpenTelemetry, which is not installed: pip install 'lithops_mini[otel]'"
        if endpoint is not None:
            raise ConfigError(what) from error
        logger.info("%s", what)
        return None


class SpanSender:
    """Makes the spans of jobs and sends them, in its own thread."""

    def __init__(self, endpoint: str | None) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

        made: list[ReadableSpan] = []

        class Collect(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                made.append(span)

        url = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
        self._exporter: Any = OTLPSpanExporter(endpoint=url)
        resource = Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "lithops_mini"})
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(Collect())
        self._tracer: Tracer = self._provider.get_tracer("lithops_mini")
        self._made = made
        self._jobs: queue.SimpleQueue[Callable[[], EndedJob] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lithops_mini-traces", daemon=True)
        self._thread.start()

    def context(self) -> Context:
        """Where the calling thread is in a trace of its own, if it is in one: for ``EndedJob.parent``."""
        from opentelemetry.context import get_current

        return get_current()

    def send(self, tell: Callable[[], EndedJob]) -> None:
        """Have the spans of a job sent, soon; ``tell`` is called in another thread."""
        self._jobs.put(tell)

    def close(self) -> None:
        """Send what is left, and end; a collector that does not answer has some seconds to do it."""
        self._jobs.put(None)
        self._thread.join(_LINGER)
        if self._thread.is_alive():
            logger.warning("the collector of traces is slow: some are not sent")

    def _run(self) -> None:
        while (tell := self._jobs.get()) is not None:
            job = tell()
            try:
                sent = self._send(job)
            except Exception as error:  # noqa: BLE001 - a collector's trouble is none of the job's
                logger.warning(
                    "the traces of job %s could not be sent: %s: %s", job.job_id, type(error).__name__, error
                )
                continue
            if not sent:
                logger.warning("the collector has not taken the traces of job %s", job.job_id)
        self._exporter.shutdown()
        self._provider.shutdown()

    def _send(self, job: EndedJob) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        self._made.clear()
        _make_spans(self._tracer, job)
        for begin in range(0, len(self._made), _BATCH):
            if self._exporter.export(self._made[begin : begin + _BATCH]) is not SpanExportResult.SUCCESS:
                return False
        return True


def _make_spans(tracer: Tracer, job: EndedJob) -> None:
    from opentelemetry.trace import SpanKind, set_span_in_context

    if not job.calls:
        return
    failures = {failure.call_id: failure for failure in job.failures}
    earlier: dict[int, list[Attempt]] = {}
    for attempt in job.attempts:
        earlier.setdefault(attempt.call_id, []).append(attempt)
    begin, end = min(call.submitted for call in job.calls), max(call.settled for call in job.calls)
    told = {f"lithops_mini.{key}": value for key, value in job.facts.items()}
    told |= {"lithops_mini.job": job.job_id, "code.function.name": job.function}
    failed = sum(call.status not in ("ok", "cancelled") for call in job.calls)
    whole = tracer.start_span(
        f"job {job.function}",
        context=job.parent,
        kind=SpanKind.CLIENT,
        start_time=_ns(begin),
        attributes={**told, "lithops_mini.calls": len(job.calls), "lithops_mini.failed": failed},
    )
    within = set_span_in_context(whole)
    for call in job.calls:
        span = tracer.start_span(
            f"call {job.function}",
            context=within,
            start_time=_ns(call.submitted),
            attributes={
                "lithops_mini.job": job.job_id,
                "lithops_mini.call": call.call_id,
                "lithops_mini.status": call.status,
                "lithops_mini.attempts": call.attempt,
                "lithops_mini.bytes_in": call.bytes_in,
                "lithops_mini.bytes_out": call.bytes_out,
            },
        )
        inside = set_span_in_context(span)
        for attempt in earlier.get(call.call_id, ()):
            _attempt_span(tracer, inside, attempt, job.function)
        _last_attempt_span(tracer, inside, call, job.function, failures.get(call.call_id))
        _judge(span, call.status, failures.get(call.call_id))
        span.end(_ns(call.settled))
    if failed:
        _judge(whole, f"{failed} of {len(job.calls)} calls failed", None)
    whole.end(_ns(end))


def _attempt_span(tracer: Tracer, within: Context, attempt: Attempt, function: str) -> None:
    begin = attempt.given_up if attempt.dispatched is None else attempt.dispatched
    attributes = {"lithops_mini.status": attempt.status, "lithops_mini.worker": attempt.worker_id}
    span = _start_attempt(tracer, within, function, attempt.attempt, begin, attributes)
    _mark_function(span, attempt.started, attempt.ended)
    span.add_event("exception", {"exception.message": attempt.why}, _ns(attempt.ended or attempt.given_up))
    _judge(span, attempt.why, None)
    span.end(_ns(max(begin, attempt.given_up)))


def _last_attempt_span(
    tracer: Tracer, within: Context, call: CallStats, function: str, failure: Failure | None
) -> None:
    begin = call.settled if call.dispatched is None else call.dispatched
    attributes = {
        "lithops_mini.status": call.status,
        "lithops_mini.worker": call.worker_id,
        "lithops_mini.bytes_in": call.bytes_in,
        "lithops_mini.bytes_out": call.bytes_out,
        "lithops_mini.peak_memory": call.peak_memory,
        "lithops_mini.cpu_time": call.cpu_user + call.cpu_system,
        "faas.coldstart": call.cold,
    }
    span = _start_attempt(tracer, within, function, call.attempt, begin, attributes)
    _mark_function(span, call.started, call.ended)
    if failure is not None:
        told = {"type": failure.type_name, "message": failure.message, "stacktrace": failure.traceback}
        event = {f"exception.{key}": value for key, value in told.items()}
        span.add_event("exception", event, _ns(call.ended or call.settled))
    _judge(span, call.status, failure)
    span.end(_ns(max(begin, call.settled)))


def _start_attempt(
    tracer: Tracer, within: Context, function: str, number: int, begin: float, attributes: dict[str, Any]
) -> Span:
    attributes["lithops_mini.attempt"] = number
    return tracer.start_span(f"attempt {function}", context=within, start_time=_ns(begin), attributes=attributes)


def _mark_function(span: Span, started: float | None, ended: float | None) -> None:
    """When the worker entered the function and left it, by the worker's clock."""
    for name, when in (("function entered", started), ("function left", ended)):
        if when is not None:
            span.add_event(name, timestamp=_ns(when))


def _judge(span: Span, status: str, failure: Failure | None) -> None:
    from opentelemetry.trace import Status, StatusCode

    if status == "ok":
        span.set_status(Status(StatusCode.OK))
    elif status != "cancelled":
        text = f"{failure.type_name}: {failure.message}" if failure else status
        span.set_status(Status(StatusCode.ERROR, text))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
