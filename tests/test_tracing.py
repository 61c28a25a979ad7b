"""Traces of jobs, as a collector gets them by OTLP over HTTP."""

from __future__ import annotations

import gzip
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from terminal import child

import lithops_mini as lm
from lithops_mini import tracing
from lithops_mini.errors import ConfigError, WorkerDied

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider


class Collector:
    """A collector that keeps what it gets."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.paths: set[str] = set()
        self.services: set[str] = set()
        self.spans: list[Any] = []

    def named(self, kind: str) -> list[Any]:
        return [span for span in self.spans if span.name.startswith(f"{kind} ")]


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            taken.paths.add(self.path)
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                taken.services |= {a.value.string_value for a in group.resource.attributes if a.key == "service.name"}
                taken.spans += [span for scope in group.scope_spans for span in scope.spans]
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Take) as server:
        taken = Collector(server)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield taken
        finally:
            server.shutdown()
            thread.join()


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def unlucky(x: int) -> int:
    if x == 1:
        raise ValueError("not one")
    if x == 2:
        os._exit(3)
    return x


def test_a_span_for_each_job_call_and_attempt(collector: Collector, tmp_path: Path) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("the program")
    with lm.localhost_executor(
        max_workers=2, retries=1, progress=False, storage_path=tmp_path, otlp_endpoint=collector.url
    ) as executor:
        with tracer.start_as_current_span("the user's own") as own:
            futures = executor.map(unlucky, range(600))
        with pytest.raises((ValueError, WorkerDied)):
            executor.get_result(futures)
    assert collector.paths == {"/v1/traces"}
    assert collector.services == {"lithops_mini"}
    (job,) = collector.named("job")
    calls, attempts = collector.named("call"), collector.named("attempt")
    assert len(calls) == 600
    assert len(attempts) == 601
    assert len(collector.spans) == 1 + 600 + 601
    assert job.parent_span_id == own.get_span_context().span_id.to_bytes(8, "big")
    assert {span.trace_id for span in collector.spans} == {own.get_span_context().trace_id.to_bytes(16, "big")}
    assert {call.parent_span_id for call in calls} == {job.span_id}
    assert job.name == "job unlucky"
    told = attributes(job)
    assert told["lithops_mini.calls"] == 600
    assert told["lithops_mini.failed"] == 2
    assert told["lithops_mini.job"] == futures[0].job_id

    of_call = defaultdict(list)
    numbers = {call.span_id: attributes(call)["lithops_mini.call"] for call in calls}
    for attempt in attempts:
        of_call[numbers[attempt.parent_span_id]].append(attempt)
    stats = {call.call_id: call for call in executor.stats()[0][1]}
    for call in calls:
        number = numbers[call.span_id]
        assert call.start_time_unix_nano == int(stats[number].submitted * 1e9)
        assert call.end_time_unix_nano == int(stats[number].settled * 1e9)
        assert all(call.start_time_unix_nano <= attempt.start_time_unix_nano for attempt in of_call[number])
        assert all(attempt.end_time_unix_nano <= call.end_time_unix_nano for attempt in of_call[number])
        assert call.status.code == (2 if number in (1, 2) else 1)

    (raised,) = of_call[1]
    (exception,) = [event for event in raised.events if event.name == "exception"]
    told = attributes(exception)
    assert (told["exception.type"], told["exception.message"]) == ("ValueError", "not one")
    assert "in unlucky" in told["exception.stacktrace"]
    assert [attributes(each)["lithops_mini.attempt"] for each in of_call[2]] == [1, 2]
    assert [attributes(each)["lithops_mini.status"] for each in of_call[2]] == ["died", "died"]
    assert "exit code 3" in of_call[2][0].status.message
    for lost in of_call[2]:
        (why,) = [attributes(event) for event in lost.events if event.name == "exception"]
        assert "exit code 3" in why["exception.message"]
    told = attributes(of_call[5][0])
    assert (told["lithops_mini.bytes_in"], told["lithops_mini.bytes_out"]) == (stats[5].bytes_in, stats[5].bytes_out)
    assert stats[5].bytes_out > 0
    assert {event.name for event in of_call[5][0].events} == {"function entered", "function left"}


def test_the_variable_of_the_standard_is_enough(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "study")
    with lm.function_executor("inline", progress=False) as executor:
        assert executor.get_result(executor.map_reduce(abs, [-1, -2], lambda results: sum(results))) == 3
    assert collector.services == {"study"}
    assert [len(collector.named(kind)) for kind in ("job", "call", "attempt")] == [2, 3, 3]
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing.open_tracer(None) is None


def test_a_collector_that_is_not_there_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with lm.function_executor("inline", progress=False, otlp_endpoint="http://127.0.0.1:9") as executor:
        assert executor.submit(abs, -1).result() == 1
    assert [record for record in caplog.records if "traces of job" in record.message]


def test_without_an_endpoint_nothing_is_imported() -> None:
    assert not child(
        """
import os
for name in [name for name in os.environ if name.startswith("OTEL_")]:
    del os.environ[name]
from lithops_mini import tracing
assert tracing.open_tracer(None) is None
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    )


def test_without_the_sdk_only_a_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert tracing.open_tracer(None) is None
    with pytest.raises(ConfigError, match=r"pip install 'lithops_mini\[otel\]'"):
        tracing.open_tracer("http://127.0.0.1:9")
