"""`Tracing`: OpenTelemetry spans of what happens to tasks (submit, wait, run), sent over OTLP/HTTP. Only where the extra
`otel` is installed and OTEL_EXPORTER_OTLP_ENDPOINT is set; else there is none, and nothing is imported or done for it.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from app.core.clock import from_milliseconds
from app.core.logger import structlog
from app.core.settings import Settings
from app.core.task import ClaimedTask
from app.core.trace import Trace, trace_of
from app.core.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from app.services.settling import Ended

MOST_OPEN = 10_000
"""Attempts whose end nobody told us, because their lease went to others, are forgotten when there are so many."""
FLUSH_SECONDS = 5.0


class Tracing:
    """Makes the spans of one process and hands them to a thread that sends them. A collector that does not answer costs
    spans, and nothing else."""

    def __init__(self, endpoint: str, priority_step_seconds: float, clock: Callable[[], datetime]) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.version": VERSION})  # with what OTEL_RESOURCE_ATTRIBUTES says
        if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "task-service"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("task-service", VERSION)
        self._propagator = TraceContextTextMapPropagator()
        self._api = trace
        self._step = priority_step_seconds
        self._clock = clock
        self._open: dict[tuple[int, int], Span] = {}

    @contextmanager
    def submitting(self, trace: Trace | None, what: str, count: int = 1) -> Iterator[Trace | None]:
        """A span for storing `count` tasks. Gives the trace to store with them."""
        attributes: Any = {"task.type": what} if count == 1 else {"task.count": count}
        span = self._tracer.start_span(
            f"submit {what}", self._context(trace), kind=self._api.SpanKind.PRODUCER, attributes=attributes
        )
        with self._api.use_span(span, end_on_exit=True):
            yield self._trace(span)

    def begun(self, task: ClaimedTask) -> ClaimedTask:
        """Tell that the task waited, and begin the span of its attempt. Returns the task with the trace of that."""
        parent = self._context(trace_of(task.traceparent, task.tracestate))
        now = self._clock()
        ready_at = from_milliseconds(round(task.rank + task.priority * self._step * 1000))
        attributes: Any = {
            "task.id": task.id,
            "task.type": task.task_type,
            "task.queue": task.queue,
            "task.attempt": task.attempt,
        }
        wait = self._tracer.start_span(
            f"wait {task.task_type}", parent, attributes=attributes, start_time=_nanoseconds(min(ready_at, now))
        )
        wait.end(_nanoseconds(now))
        run = self._tracer.start_span(
            *(f"run {task.task_type}", parent),
            kind=self._api.SpanKind.CONSUMER,
            attributes=attributes,
            start_time=_nanoseconds(now),
        )
        if len(self._open) >= MOST_OPEN:
            del self._open[next(iter(self._open))]
        self._open[task.id, task.lease] = run
        trace = self._trace(run)
        return task if trace is None else replace(task, traceparent=trace.parent, tracestate=trace.state)

    def ended(self, one: "Ended") -> None:
        """End the span of an attempt as it ended."""
        span = self._open.pop((one.task.id, one.task.lease), None)
        if span is None:
            return
        span.set_attribute("task.outcome", one.outcome.word)
        if one.outcome.word in ("error", "timeout", "lost"):
            span.set_status(self._api.StatusCode.ERROR, one.outcome.word)
        ended_at = self._clock() if one.run_seconds is None else one.started_at + timedelta(seconds=one.run_seconds)
        span.end(_nanoseconds(ended_at))

    async def close(self) -> None:
        """Send what is left, for a moment."""
        flush = asyncio.to_thread(self._provider.force_flush, int(FLUSH_SECONDS * 1000))
        await asyncio.wait([asyncio.ensure_future(flush)], timeout=FLUSH_SECONDS)
        await asyncio.to_thread(self._provider.shutdown)

    def _context(self, trace: Trace | None) -> Any:
        return self._propagator.extract({} if trace is None else trace.headers)

    def _trace(self, span: "Span") -> Trace | None:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._api.set_span_in_context(span))
        return trace_of(carrier.get("traceparent"), carrier.get("tracestate"))


def open_tracing(settings: Settings, clock: Callable[[], datetime]) -> Tracing | None:
    """The tracing of this process, None where it is not wanted or its packages are missing."""
    if not settings.otel_exporter_otlp_endpoint:
        return None
    try:
        return Tracing(settings.otel_exporter_otlp_endpoint, settings.priority_step_seconds, clock)
    except ImportError as error:
        structlog.get_logger("app.tracing").warning("no spans: pip install .[otel]", reason=str(error))
        return None


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e9)
