"""Commands run inside a container that already runs: `kubectl exec`, exec probes, preStop hooks.

`runc exec` joins the container and becomes the command's parent; its pipes or its terminal are the session's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import shutil
import signal
import struct
import tempfile
import termios
import tty
from collections.abc import AsyncIterator, Sequence

from knarr.clock import Clock
from knarr.node.runtime import files
from knarr.node.runtime.conmon import Process, process, state_of
from knarr.node.runtime.contract import ExecResult

OUTPUT_BYTES_MAX = 16 << 10
"""Kept of an exec_sync's output; the rest is read and dropped, so that the command isn't held up."""
READ_BYTES = 32 << 10
"""Taken from a pipe or terminal at once."""
QUEUE_PIECES_MAX = 64
"""Unread output of a session, at most 2 MiB; then the command waits for its reader."""
DRAIN_S = 1.0
"""A child left in the background may hold the output open; it is not waited for longer."""
LOOK_S = 0.002
"""Between looks for a state that the kernel or the OCI runtime reaches in a moment, and tells no other way."""
START_LOOKS_MAX = 5_000
"""For the OCI runtime to have started a command that is to be killed; it takes tens of milliseconds."""
STOP_LOOKS_MAX = 500
"""For a process to have stopped after SIGSTOP, which it does at once unless it waits for a disk."""
_CANNOT_START = 255
"""runc's own exit code when the command never ran."""


class ExecStreams:
    """A command in a container, its input and output."""

    def __init__(self, clock: Clock, terminal: bool) -> None:
        self._clock = clock
        self._terminal = terminal
        self._scratch = ""
        self._process: asyncio.subprocess.Process | None = None
        self._stdin = -1
        self._readers: dict[int, asyncio.Task[None]] = {}
        self._pieces: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(QUEUE_PIECES_MAX)
        self._master = -1
        self._said_last = b""
        self._write_lock = asyncio.Lock()

    @classmethod
    async def begin(
        cls,
        line: Sequence[str],
        scratch_directory: str,
        container_id: str,
        command: Sequence[str],
        clock: Clock,
        *,
        terminal: bool,
        stdin: bool,
    ) -> ExecStreams:
        """`line` is the OCI runtime with its global options."""
        streams = cls(clock, terminal)
        streams._scratch = await asyncio.to_thread(tempfile.mkdtemp, dir=scratch_directory)
        await streams._begin(line, container_id, command, stdin=stdin)
        return streams

    async def _begin(self, line: Sequence[str], container_id: str, command: Sequence[str], *, stdin: bool) -> None:
        arguments = [*line, "exec", "--pid-file", self._pid_file]
        if self._terminal:
            arguments += ["--tty", "--env", "TERM=xterm"]
        arguments += [container_id, *command]
        theirs: list[int] = []
        outputs: dict[int, int] = {}
        try:
            if self._terminal:
                self._master, slave = os.openpty()
                tty.setraw(slave)  # the terminal in the container does echo and line editing
                theirs = [slave]
                ends = (slave, slave, slave)
                outputs[1] = self._master
                self._stdin = self._master
            else:
                outputs[1], out = os.pipe()
                outputs[2], err = os.pipe()
                given, self._stdin = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1)
                theirs = [given, out, err]
                ends = (given, out, err)
            self._process = await asyncio.create_subprocess_exec(
                *arguments, stdin=ends[0], stdout=ends[1], stderr=ends[2], start_new_session=True
            )
        except BaseException:
            for descriptor in {*outputs.values(), self._stdin} - {-1}:
                os.close(descriptor)
            await asyncio.to_thread(shutil.rmtree, self._scratch, True)
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        for number, descriptor in outputs.items():
            os.set_blocking(descriptor, False)
            self._readers[number] = asyncio.create_task(self._read(number, descriptor))
        if self._stdin >= 0:
            os.set_blocking(self._stdin, False)

    # -- the session

    async def write(self, data: bytes) -> None:
        async with self._write_lock:
            view = memoryview(data)
            while view and self._stdin >= 0:
                try:
                    view = view[os.write(self._stdin, view) :]
                except BlockingIOError:
                    await self._writable()
                except OSError as error:
                    if error.errno in (errno.EPIPE, errno.EIO):
                        return  # the command has closed its input or ended; its exit code tells
                    raise

    async def close_stdin(self) -> None:
        if self._terminal:
            await self.write(b"\x04")  # a terminal has no end; this is how one is typed
        elif self._stdin >= 0:
            async with self._write_lock:
                if self._stdin >= 0:
                    os.close(self._stdin)
                    self._stdin = -1

    async def resize(self, width: int, height: int) -> None:
        if self._master < 0 or self._process is None or self._process.returncode is not None:
            return
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        with contextlib.suppress(ProcessLookupError):
            # The OCI runtime hands the new size on to the terminal in the container.
            self._process.send_signal(signal.SIGWINCH)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def exit_code(self) -> int:
        assert self._process is not None
        code = await self._process.wait()
        if code == _CANNOT_START and not await asyncio.to_thread(os.path.exists, self._pid_file):
            await asyncio.wait(self._readers.values())  # short: nothing runs that could hold them open
            return code_of_start_error(self._said_last)
        return 128 - code if code < 0 else code

    async def close(self) -> None:
        await self.kill()
        for reader in self._readers.values():
            reader.cancel()
        await asyncio.gather(*self._readers.values(), return_exceptions=True)
        if self._stdin >= 0 and self._stdin != self._master:
            os.close(self._stdin)
        self._stdin = self._master = -1
        await asyncio.to_thread(shutil.rmtree, self._scratch, True)

    async def kill(self) -> None:
        """Kill the command, and what it has started, if it still runs."""
        assert self._process is not None
        if self._process.returncode is not None:
            return
        for _ in range(START_LOOKS_MAX):
            inside = await asyncio.to_thread(self._inside)
            if inside is not None or self._process.returncode is not None:
                break
            # The OCI runtime is still starting it. Killed now, it might leave the command running.
            await self._clock.sleep(LOOK_S)
        await asyncio.to_thread(_kill_tree, inside)
        if inside is None and self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    # -- below it

    @property
    def _pid_file(self) -> str:
        return os.path.join(self._scratch, "pid")

    def _inside(self) -> Process | None:
        text = files.read(self._pid_file)
        return process(int(text)) if text else None

    async def _read(self, number: int, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        try:
            while True:
                try:
                    data = os.read(descriptor, READ_BYTES)
                except BlockingIOError:
                    readable.clear()
                    await readable.wait()
                    continue
                except OSError as error:
                    if error.errno != errno.EIO:  # a terminal's way to say that its other end is closed
                        raise
                    data = b""
                if not data:
                    break
                self._said_last = (
                    (self._said_last + data)[-READ_BYTES:] if number == 2 or self._terminal else self._said_last
                )
                await self._pieces.put((number, data))
        finally:
            loop.remove_reader(descriptor)
            if descriptor == self._master:
                self._master = self._stdin = -1
            os.close(descriptor)
        others = [task for task in self._readers.values() if task is not asyncio.current_task()]
        if all(task.done() for task in others):
            await self._pieces.put(None)

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        # A copy: a terminal's one descriptor is watched for reading as well.
        descriptor = os.dup(self._stdin)
        ready = asyncio.Event()
        loop.add_writer(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(descriptor)
            os.close(descriptor)


async def run_to_end(
    line: Sequence[str],
    scratch_directory: str,
    container_id: str,
    command: Sequence[str],
    timeout_s: float,
    clock: Clock,
) -> ExecResult:
    """Run a command; TimeoutError after `timeout_s` (0: none), the command killed."""
    streams = await ExecStreams.begin(
        line, scratch_directory, container_id, command, clock, terminal=False, stdin=False
    )
    output = bytearray()

    async def collect() -> None:
        async for _, data in streams.output():
            output.extend(data[: OUTPUT_BYTES_MAX - len(output)])

    collecting = asyncio.create_task(collect())
    try:
        async with clock.timeout(timeout_s if timeout_s > 0 else None):
            code = await streams.exit_code()
        with contextlib.suppress(TimeoutError):
            async with clock.timeout(DRAIN_S):
                await asyncio.shield(collecting)
        return ExecResult(code, bytes(output))
    finally:
        collecting.cancel()
        await streams.close()
        await asyncio.gather(collecting, return_exceptions=True)


def code_of_start_error(said: bytes) -> int:
    """A shell's codes: 127 for a command that isn't there, 126 for one that can't be executed."""
    if b"not found" in said or b"no such file or directory" in said:
        return 127
    return 126


def _wait_until_stopped(pid: int) -> None:
    """The signal takes effect when the process next comes out of the kernel: until then it may still fork."""
    for _ in range(STOP_LOOKS_MAX):
        if state_of(pid) not in (b"R", b"S", b"D"):
            return
        select.poll().poll(LOOK_S * 1000)


def _kill_tree(root: Process | None) -> None:
    """Kill a process and its descendants; each is stopped while its children are listed: none slips away."""
    if root is None:
        return
    pending = [root]
    while pending:
        victim = pending.pop()
        if not victim.kill(signal.SIGSTOP):
            continue
        _wait_until_stopped(victim.pid)
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{victim.pid}/task"):
                with open(f"/proc/{victim.pid}/task/{thread}/children", encoding="ascii") as file:
                    found = (process(int(pid)) for pid in file.read().split())
                    pending.extend(child for child in found if child is not None)
        victim.kill(signal.SIGKILL)
