"""One conmon beside every container: it outlives the agent, writes the log, and knows the exit code.

conmon (containers/conmon, the monitor of CRI-O and Podman) starts the OCI runtime, holds the container's
output, writes it to the log in CRI format, serves those who attach, and writes the exit code to a file before
it ends. So the agent may be killed at any time; to notice an exit it need only watch conmon's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable

from msgspec import Struct

from knarr.node.runtime import files
from knarr.node.runtime.contract import RuntimeFailure

ANSWER_BYTES_MAX = 64 << 10
"""conmon answers with one line: a number, or the OCI runtime's error."""
KILL_ROUNDS_MAX = 10
"""conmon may have started the next process while it was killed; there are three in a row at most."""
KILL_WAIT_MS_MAX = 10_000
"""For a process to be gone after SIGKILL."""
CONTROL_ROUNDS_MAX, CONTROL_ROUND_S = 500, 0.002
"""For conmon to take a message; it may be stopped."""
PACKET_BYTES_MAX = 8192
"""Of an attach socket (CONN_SOCK_BUF_SIZE in conmon), and of what it takes on stdin in one piece."""
_STDERR = 3
"""How conmon marks packets of stderr on the attach socket; those of stdout begin with 2."""


class StartFailed(RuntimeFailure):
    """The OCI runtime refused the container."""


class Process(Struct, frozen=True):
    """A process, named so that a later one with the same number isn't taken for it."""

    pid: int
    started: int
    """Clock ticks since boot (proc(5), /proc/<pid>/stat, field 22)."""

    def exists(self) -> bool:
        return started_ticks(self.pid) == self.started

    def open(self) -> int | None:
        """A pidfd, or None when the process is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError as error:
            if error.errno in (errno.ESRCH, errno.EINVAL):
                return None
            raise
        if not self.exists():
            os.close(descriptor)
            return None
        return descriptor

    def kill(self, number: int) -> bool:
        """Send a signal; False when the process is gone."""
        descriptor = self.open()
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


def process(pid: int) -> Process | None:
    """The process that has this number now."""
    started = started_ticks(pid)
    return Process(pid, started) if started is not None else None


def started_ticks(pid: int) -> int | None:
    """When the process started; None when it is gone or dead already (a zombie)."""
    fields = _stat(pid)
    return None if not fields or fields[0] in (b"Z", b"X") else int(fields[19])


def state_of(pid: int) -> bytes:
    """One letter (proc(5), /proc/<pid>/stat, field 3); empty when the process is gone."""
    return (_stat(pid) or [b""])[0]


def _stat(pid: int) -> list[bytes]:
    """The fields after the program's name, which may itself contain blanks and brackets."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


class Launch(Struct, frozen=True):
    """What to start."""

    conmon: str
    runtime: str
    runtime_root: str
    container_id: str
    bundle: str
    """The container's folder: config.json, rootfs, and conmon's own files."""
    exit_directory: str
    log_path: str
    terminal: bool
    stdin: bool
    stdin_once: bool

    def arguments(self) -> list[str]:
        line = [
            self.conmon,
            "--api-version", "1",
            "--cid", self.container_id,
            "--cuuid", self.container_id,
            "--name", self.container_id,
            "--runtime", self.runtime,
            "--runtime-arg", f"--root={self.runtime_root}",
            "--bundle", self.bundle,
            "--container-pidfile", os.path.join(self.bundle, "pid"),
            "--conmon-pidfile", os.path.join(self.bundle, "conmon.pid"),
            "--exit-dir", self.exit_directory,
            "--log-path", f"k8s-file:{self.log_path}",
            "--log-level", "error",
            # The attach socket is reached through a descriptor of its folder: its path may be long.
            "--full-attach",
            # Logs needn't be on disk before an exit is told.
            "--no-sync-log",
        ]  # fmt: skip
        if self.terminal:
            line.append("--terminal")
        if self.stdin:
            line.append("--stdin")
            if not self.stdin_once:
                line.append("--leave-stdin-open")
        return line


class Launched(Struct, frozen=True):
    monitor: Process
    container: Process


async def launch(what: Launch) -> Launched:
    """Start conmon, which lets the OCI runtime create the container; StartFailed when that refuses."""
    read_end, write_end = os.pipe()
    try:
        try:
            starter = await asyncio.create_subprocess_exec(
                *what.arguments(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(write_end,),
                env={"_OCI_SYNCPIPE": str(write_end), "PATH": os.environ.get("PATH", os.defpath)},
                # Away from the agent's session: a closed terminal or Ctrl-C must not end containers.
                start_new_session=True,
                cwd=what.bundle,
            )
        finally:
            os.close(write_end)
        answer, _ = await asyncio.gather(_read_to_end_of_line(read_end), starter.wait())
    finally:
        os.close(read_end)
    try:
        said = json.loads(answer)
        pid, message = int(said["data"]), str(said.get("message", ""))
    except (ValueError, KeyError, TypeError) as error:
        raise StartFailed("RunContainerError", f"conmon ended without an answer: {answer[:200]!r}") from error
    if pid <= 0:
        raise StartFailed("RunContainerError", start_error(message))
    written = await asyncio.to_thread(files.read, os.path.join(what.bundle, "conmon.pid"))
    monitor, container = process(int(written or b"0")), process(pid)
    if monitor is None or container is None:
        raise StartFailed("RunContainerError", "the container ended before it was started")
    return Launched(monitor, container)


def kill_all_of(container_id: str) -> None:
    """Kill conmon and the OCI runtime where they are at work on this container. For threads.

    What of it runs already in the container's control group is not found here.
    """
    name = container_id.encode()
    for _ in range(KILL_ROUNDS_MAX):
        found = [one for one in _all_processes() if name in _command_line(one.pid).split(b"\0")]
        if not found:
            return
        for one in found:
            _kill_and_wait(one)
    raise RuntimeFailure("KillContainerError", f"processes of container {container_id} come again and again")


def _all_processes() -> list[Process]:
    found = (process(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return [one for one in found if one is not None]


def _command_line(pid: int) -> bytes:
    try:
        return files.read(f"/proc/{pid}/cmdline") or b""
    except OSError:  # it ended meanwhile
        return b""


def _kill_and_wait(victim: Process) -> None:
    descriptor = victim.open()
    if descriptor is None:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(KILL_WAIT_MS_MAX)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def start_error(message: str) -> str:
    """The runtime's reason without the time stamps and levels of its log lines."""
    reasons = []
    for line in message.strip().splitlines():
        _, found, text = line.partition('msg="')
        reasons.append(text.removesuffix('"').replace('\\"', '"') if found else line)
    reason = reasons[-1] if reasons else "the OCI runtime gave no reason"
    return f"OCI runtime create failed: {reason}"


class Watch:
    """Calls back once when a process has ended; no polling."""

    def __init__(self, watched: Process, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._descriptor = watched.open()
        if self._descriptor is None:
            self._loop.call_soon(self._ended)
        else:
            self._loop.add_reader(self._descriptor, self._fire)

    def _fire(self) -> None:
        self.close()
        self._ended()

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


async def resize(bundle: str, width: int, height: int) -> None:
    """Tell conmon the size of the container's terminal."""
    await asyncio.to_thread(_control, bundle, f"1 {height} {width}\n")


async def reopen_log(bundle: str) -> None:
    """Have conmon write to the log's path anew."""
    await asyncio.to_thread(_control, bundle, "2 0 0\n")


def _control(bundle: str, message: str) -> None:
    """One message, once conmon has taken the one before.

    Of several that it reads in one piece it does the first, once for each of them: a client that attaches to a terminal
    tells two sizes in a row, and the second counts.
    """
    try:
        # Not blocking: without a reader, conmon is gone and nobody needs the message.
        descriptor = os.open(os.path.join(bundle, "ctl"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for _ in range(CONTROL_ROUNDS_MAX):
            if not int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder):
                break
            select.select([], [], [], CONTROL_ROUND_S)  # a pipe doesn't say when it was emptied
        os.write(descriptor, message.encode())
    finally:
        os.close(descriptor)


class AttachedStreams:
    """A session on the stdin, stdout and stderr of a container's first process."""

    def __init__(self, bundle: str, connection: socket.socket, exit_code: Callable[[], Awaitable[int]]) -> None:
        self._bundle = bundle
        self._connection = connection
        self._exit_code = exit_code
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, bundle: str, exit_code: Callable[[], Awaitable[int]]) -> AttachedStreams:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        folder = os.open(bundle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{folder}/attach")
        except OSError as error:
            connection.close()
            raise RuntimeFailure("AttachError", f"the container can't be attached to: {error.strerror}") from error
        finally:
            os.close(folder)
        return cls(bundle, connection, exit_code)

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), PACKET_BYTES_MAX):
            await self._loop.sock_sendall(self._connection, data[start : start + PACKET_BYTES_MAX])

    async def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    async def resize(self, width: int, height: int) -> None:
        await resize(self._bundle, width, height)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while True:
            try:
                packet = await self._loop.sock_recv(self._connection, PACKET_BYTES_MAX + 1)
            except OSError:
                return
            if not packet:
                return
            yield (2 if packet[0] == _STDERR else 1), packet[1:]

    async def exit_code(self) -> int:
        return await self._exit_code()

    async def close(self) -> None:
        # Shut down first: a reader that waits for output wakes up, where close alone would leave it waiting.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


async def _read_to_end_of_line(descriptor: int) -> bytes:
    """One line from a pipe, or what came before its end."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    data = b""
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        while b"\n" not in data and len(data) < ANSWER_BYTES_MAX:
            await readable.wait()
            readable.clear()
            try:
                piece = os.read(descriptor, ANSWER_BYTES_MAX)
            except BlockingIOError:
                continue
            if not piece:
                break
            data += piece
    finally:
        loop.remove_reader(descriptor)
    return data
