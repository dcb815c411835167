"""The gRPC server: its limits, health and reflection."""

import asyncio

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from environment.listening import join
from transformer.cli import Tls
from transformer.grpc import health
from transformer.grpc.drain import InFlightCalls
from transformer.grpc.interceptors import ApiKeyInterceptor
from transformer.grpc.receive import MessageReceiver, ReceiveInterceptor
from transformer.grpc.servicer import SERVICE, Servicer
from transformer.services import Services

_ENVELOPE_BYTES = 2**20  # names, shapes and parameters around the images
# The tasks of a cancelled call, as grpcio 1.85 names them, outlive the server by a moment.
_TASKS_OF_CALLS = ("rpc_task", "HandleExceptions[")
_MOMENT_S = 1.0


class GrpcServer:
    """KServe's v2 service, `grpc.health.v1` and reflection on one port."""

    def __init__(self, services: Services) -> None:
        settings, keys = services.settings, services.keys
        self._calls = InFlightCalls()
        self._health = health.HealthServicer(services.dataplane, SERVICE)
        max_message_bytes = settings.max_body_bytes + _ENVELOPE_BYTES
        receiver = MessageReceiver(
            timeout_s=settings.body_timeout_s,
            max_message_bytes=max_message_bytes,
            max_bodies_bytes=settings.max_bodies_bytes,
        )
        key_interceptors = () if keys is None else (ApiKeyInterceptor(keys, settings, trace=services.trace),)
        self._server = grpc.aio.server(
            interceptors=(*key_interceptors, ReceiveInterceptor(receiver, self._calls)),
            options=(
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # By default two servers may share a port, and a client reaches either.
                ("grpc.so_reuseport", 0),
                # A client that vanished is detected within 80 s; pings every 10 s or less often are allowed.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                # Bounds how long a client that reads no responses keeps them in memory.
                ("grpc.max_connection_age_ms", 1_800_000),
                ("grpc.max_connection_age_grace_ms", 300_000),
            ),
        )
        servicer = Servicer(services, receiver, self._calls)
        self._server.add_generic_rpc_handlers((servicer.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE, reflection.SERVICE_NAME), self._server)

    def listen(self, host: str, port: int, tls: Tls | None = None) -> None:
        """Bind the port.

        Raises:
            RuntimeError: the port is unavailable.
        """
        address = join(host, port)
        if tls is None:
            self._server.add_insecure_port(address)
        else:
            pair = (tls.key_file.read_bytes(), tls.cert_file.read_bytes())
            self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))

    async def start(self) -> None:
        """Accept requests."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Accept no more calls, and finish those in progress within the grace period."""
        self._health.stop()
        calls = asyncio.create_task(self._calls.drain())
        await asyncio.wait(
            [asyncio.create_task(self._server.stop(grace_s)), calls], return_when=asyncio.FIRST_COMPLETED
        )
        calls.cancel()
        # Streams of reflection that clients keep open would take all of the grace period.
        await self._server.stop(0)
        # Tasks that are left when the event loop ends are logged as failures, each with a traceback.
        if left := [task for task in asyncio.all_tasks() if task.get_name().startswith(_TASKS_OF_CALLS)]:
            await asyncio.wait(left, timeout=_MOMENT_S)
