"""The route that Prometheus scrapes."""

import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from app.api.access import needs
from app.api.insights import UNAVAILABLE
from app.api.routes import DirectRoute
from app.core.keys import Scope
from app.services.wiring import Services

router = APIRouter(tags=["insights"], route_class=DirectRoute)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Metrics, as text for Prometheus.", "content": {"text/plain": {}}},
        503: UNAVAILABLE,
    },
)
@needs(Scope.READ, whole=True)
async def read_metrics(request: Request) -> Response:
    """Numbers about queues, tasks, workers and breakers in the format of Prometheus. All come from the store, so every API
    process says the same: scrape the service once, not each process of it."""
    services: Services = request.app.state.services
    registry = CollectorRegistry()
    registry.register(await services.metrics.snapshot())
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    # In a thread, because there may be a hundred queues with thirty lines for each task type.
    return Response(await asyncio.to_thread(encode, registry), media_type=media_type)
