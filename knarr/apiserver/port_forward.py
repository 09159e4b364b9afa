"""port-forward: connections to ports of a pod, many in one WebSocket.

Two protocols carry them. kubectl tunnels SPDY: two streams a connection, one for its data and one for what goes wrong.
Others (the Python client) name their ports in the query and get channels 2n for data and 2n+1 for errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from functools import partial

from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError, BadRequest
from knarr.apiserver import spdy
from knarr.client.channels import CHUNK_BYTES, PORT_SUBPROTOCOL, serve_ports
from knarr.client.nodes import NodeBackend
from knarr.client.transport import Answer, Request, Socket, Upgrade

TUNNEL = "SPDY/3.1+portforward.k8s.io"
SUBPROTOCOLS = (TUNNEL, PORT_SUBPROTOCOL, "portforward.k8s.io")
CONNECTIONS_MAX = 1000
"""In one tunnel at once; each is a socket in the pod."""
REFUSED_STREAM = 3


def port_forward(pod: Pod, request: Request, nodes: NodeBackend) -> Answer:
    """Raises BadRequest."""
    asked = request.repeated.get("ports") or [request.query.get("ports", "")]
    ports = [int(port) for value in asked for port in value.split(",") if port.isdecimal()]

    async def serve(socket: Socket) -> None:
        if socket.subprotocol == TUNNEL:
            await _Tunnel(socket, pod, nodes).serve()
        else:
            await serve_ports(
                socket, ports, partial(nodes.port_forward, pod), lambda port, error: _fault(pod, port, error)
            )

    if request.headers.get("upgrade", "websocket").lower() != "websocket":
        raise BadRequest("Upgrade request required: this must be a WebSocket")
    if not ports and TUNNEL not in request.headers.get("sec-websocket-protocol", ""):
        raise BadRequest('query parameter "ports" is required')
    return Answer(101, {}, upgrade=Upgrade(SUBPROTOCOLS, serve))


class _Tunnel:
    """SPDY inside a WebSocket."""

    def __init__(self, socket: Socket, pod: Pod, nodes: NodeBackend) -> None:
        self._socket = socket
        self._pod = pod
        self._nodes = nodes
        self._writer = spdy.Writer()
        self._errors: dict[str, int] = {}
        """request id → the stream that takes what goes wrong with it."""
        self._inward: dict[int, asyncio.Queue[bytes | None]] = {}
        """Data stream → what the client sent, until it is written to the pod; None ends it."""
        self._gone = asyncio.Event()
        """Set when the client is: what it has said still goes to the pods, and nobody hears them any more."""

    async def serve(self) -> None:
        """Until the client goes."""
        reader = spdy.Reader()
        async with asyncio.TaskGroup() as group:
            while (message := await self._socket.receive()) is not None:
                try:
                    for frame in reader.feed(message):
                        await self._take(frame, group)
                except spdy.ProtocolError:
                    break  # Nothing that follows can be understood.
            self._gone.set()
            await self._socket.close()

    async def _take(self, frame: spdy.Frame, group: asyncio.TaskGroup) -> None:
        match frame.kind:
            case spdy.SYN_STREAM:
                await self._open(frame, group)
            case spdy.PING:
                await self._socket.send(self._writer.pong(frame))
            case 0 if frame.stream in self._inward:
                queue = self._inward[frame.stream]
                if frame.data:
                    await queue.put(frame.data)
                if frame.fin:
                    await queue.put(None)
            case spdy.RST_STREAM if frame.stream in self._inward:
                await self._inward[frame.stream].put(None)

    async def _open(self, frame: spdy.Frame, group: asyncio.TaskGroup) -> None:
        request, port = frame.headers.get("requestid", ""), frame.headers.get("port", "")
        kind = frame.headers.get("streamtype", "")
        held: Sized = self._errors if kind == "error" else self._inward
        if kind not in ("error", "data") or not port.isdecimal() or len(held) >= CONNECTIONS_MAX:
            await self._socket.send(self._writer.reset(frame.stream, REFUSED_STREAM))
            return
        await self._socket.send(self._writer.syn_reply(frame.stream))
        if kind == "error":
            self._errors[request] = frame.stream
            return
        self._inward[frame.stream] = asyncio.Queue(maxsize=1)
        group.create_task(self._connection(frame.stream, self._errors.pop(request, 0), int(port)))

    async def _connection(self, data: int, error: int, port: int) -> None:
        """One connection to the pod, from its first byte to its last."""
        queue, fault = self._inward[data], b""
        try:
            reader, writer = await self._nodes.port_forward(self._pod, port)
        except (OSError, APIError) as failure:
            fault = _fault(self._pod, port, failure)
        else:
            outward = asyncio.ensure_future(self._read(data, port, reader))
            others = [asyncio.ensure_future(each) for each in (self._gone.wait(), self._write(queue, writer))]
            try:
                await asyncio.wait((outward, others[0]), return_when=asyncio.FIRST_COMPLETED)
                fault = outward.result() if outward.done() else b""
            finally:
                for task in (outward, *others):
                    task.cancel()
                await asyncio.gather(outward, *others, return_exceptions=True)
                if self._gone.is_set() and not queue.empty() and (last := queue.get_nowait()):
                    writer.write(last)
                writer.close()
        del self._inward[data]
        while not queue.empty():  # Whoever waits to put more may go on: it is for nobody now.
            queue.get_nowait()
        if self._gone.is_set():
            return
        if error:
            await self._socket.send(self._writer.data(error, fault, fin=True))
        await self._socket.send(self._writer.data(data, b"", fin=True))

    async def _read(self, data: int, port: int, reader: asyncio.StreamReader) -> bytes:
        """Until the pod has said all; answers what went wrong."""
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                await self._socket.send(self._writer.data(data, chunk))
        except ConnectionError as failure:
            return _fault(self._pod, port, failure)
        return b""

    async def _write(self, queue: asyncio.Queue[bytes | None], writer: asyncio.StreamWriter) -> None:
        try:
            while (chunk := await queue.get()) is not None:
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()
        except ConnectionError:
            while await queue.get() is not None:
                pass  # The pod reads no more; what it still has to say is read elsewhere.


def _fault(pod: Pod, port: int, error: Exception) -> bytes:
    return f"error forwarding port {port} to pod {pod.metadata.name}, uid {pod.metadata.uid}: {error}".encode()
