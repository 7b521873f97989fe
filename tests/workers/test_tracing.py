"""Spans of a task's life, as a collector gets them: a real server that takes OTLP over HTTP."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from app.core.task import Status
from app.core.trace import Trace, trace_of
from app.services.submissions import Submission
from tests.conftest import until
from tests.security.conftest import plain, serving
from tests.workers.conftest import Running, Start

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = Trace(f"00-{ID}-00f067aa0ba902b7-01", "congo=1")


class Collector(ThreadingHTTPServer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.spans: list[Any] = []
        self.services: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for of_resource in sent.resource_spans:
            found = {one.key: one.value.string_value for one in of_resource.resource.attributes}
            self.server.services.add(found["service.name"])
            self.server.spans += [span for scope in of_resource.scope_spans for span in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def submitted(running: Running, task_type: str, **fields: Any) -> int:
    services = running.services
    assert services.tracing is not None
    with services.tracing.submitting(CALLER, task_type) as trace:
        new = services.intake.prepare(Submission(task_type=task_type, **fields), trace=trace)
        return (await services.tasks.submit(new)).task.id


async def test_a_task_is_told_in_three_spans_of_the_trace_of_its_caller(start: Start, collector: Collector) -> None:
    running = await start(otel_exporter_otlp_endpoint=collector.address)
    task = await running.ended(await submitted(running, "tell_trace"))
    failed = await running.ended(
        await submitted(running, "raise_error", payload={"what": "ValueError"}, max_attempts=1)
    )
    assert (task.status, failed.status) == (Status.COMPLETED, Status.FAILED)
    await running.stop()
    assert running.services.tracing is not None
    await running.services.tracing.close()
    spans = {span.name: span for span in collector.spans}
    assert {span.trace_id.hex() for span in collector.spans} == {ID}
    submit, wait, run = (spans[f"{what} tell_trace"] for what in ("submit", "wait", "run"))
    assert submit.parent_span_id.hex() == "00f067aa0ba902b7"
    assert wait.parent_span_id == run.parent_span_id == submit.span_id
    assert submit.start_time_unix_nano <= wait.end_time_unix_nano <= run.start_time_unix_nano <= run.end_time_unix_nano
    told = json.loads(task.result or "null")
    assert told == {"traceparent": f"00-{ID}-{run.span_id.hex()}-01", "tracestate": "congo=1"}
    assert {one.key for one in run.attributes} >= {"task.id", "task.queue", "task.attempt", "task.outcome"}
    assert (run.status.code, spans["run raise_error"].status.code) == (0, 2)
    assert collector.services == {"task-service"}


async def test_without_an_endpoint_the_trace_is_handed_on_as_it_came(start: Start) -> None:
    running = await start()
    assert running.services.tracing is None
    new = running.services.intake.prepare(Submission(task_type="tell_trace"), trace=CALLER)
    task = await running.ended((await running.services.tasks.submit(new)).task.id)
    assert json.loads(task.result or "null") == CALLER.headers
    assert trace_of(task.traceparent, task.tracestate) == CALLER


async def test_a_collector_that_is_away_costs_nothing_but_spans(start: Start, collector: Collector) -> None:
    address = collector.address
    collector.server_close()
    running = await start(otel_exporter_otlp_endpoint=address)
    assert (await running.ended(await submitted(running, "echo"))).status is Status.COMPLETED


async def test_what_is_called_and_who_is_told_get_the_trace(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRETS", "a-secret-of-the-tests")
    async with serving(plain("200 OK", b"")) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        running = await start()
        own = CALLER.parent.replace("b7-", "b8-")
        for headers in ({}, {"Traceparent": own}):
            asked = Submission(
                task_type="http_request",
                payload={"url": f"{site.url}/call", "headers": headers},
                webhook_url=f"{site.url}/told" if not headers else None,
            )
            new = running.services.intake.prepare(asked, trace=CALLER)
            task = await running.ended((await running.services.tasks.submit(new)).task.id)
            assert task.status is Status.COMPLETED, task.error
        await until(lambda: len(site.asked) == 3)
    sent = sorted((one.line.split()[1], one.headers["traceparent"]) for one in site.asked)
    assert sent == [("/call", CALLER.parent), ("/call", own), ("/told", CALLER.parent)]
    assert {one.headers["tracestate"] for one in site.asked} == {"congo=1"}
