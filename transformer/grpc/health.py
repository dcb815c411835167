"""`grpc.health.v1`, for load balancers, Kubernetes and gRPC clients.

Not the servicer of grpcio-health-checking (1.81): when one of its watchers leaves, the others get no updates any more.
"""

import asyncio
import contextlib
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from transformer.dataplane.dataplane import DataPlane
from transformer.errors import NotReady, ServiceNotFound
from transformer.grpc.error_status import abort

SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_INTERVAL_S = 0.5
_ALB = "ELB-HealthChecker"  # how its checks begin their user-agent
_STATUS = health_pb2.HealthCheckResponse


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Readiness of the server, as service "" and under the names of its services."""

    def __init__(self, dataplane: DataPlane, *services: str) -> None:
        self._dataplane = dataplane
        self._services = ("", *services)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Report not ready, and end the streams of watchers."""
        self._stopping.set()

    async def Check(self, message: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802
        if message.service not in self._services:
            known = ", ".join(map(repr, self._services))
            await abort(context, ServiceNotFound(f"service: got {message.service[:60]!r}, expected one of {known}"))
        status = await self._status()
        if status != _STATUS.SERVING and _reads_no_message(context):
            await abort(context, NotReady("the models are being loaded, or the server stops"))
        return _STATUS(status=status)

    async def Watch(self, message: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802
        reported = None
        while True:
            stopping = self._stopping.is_set()
            status = await self._status() if message.service in self._services else _STATUS.SERVICE_UNKNOWN
            if status != reported:
                reported = status
                await context.write(_STATUS(status=status))
            if stopping:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _INTERVAL_S)

    async def _status(self) -> Any:
        ready = not self._stopping.is_set() and await self._dataplane.ready()
        return _STATUS.SERVING if ready else _STATUS.NOT_SERVING


def _reads_no_message(context: grpc.aio.ServicerContext[Any, Any]) -> bool:
    """Whether an ALB of AWS calls: it looks at the status of gRPC alone."""
    agents = (value for key, value in context.invocation_metadata() or () if key == "user-agent")
    return any(str(agent).startswith(_ALB) for agent in agents)
