"""Run the kernel's own tools (nft, iptables-restore) without blocking the event loop.

Every rule change of knarr is one whole transaction on a tool's standard input: it happens wholly or not at all.
`network_namespace` runs the tool in another network namespace, so that several clusters (and tests) can live on
one machine without sharing a rule.
"""

from __future__ import annotations

import asyncio
import os

from knarr.clock import Clock

COMMAND_TIMEOUT_S = 30.0
"""A transaction takes milliseconds; one that takes this long is killed and tried again later."""
ROOT_FOLDERS = "/usr/sbin:/sbin"
"""Where Debian keeps these tools; not on everybody's path, even root's (su without -)."""
MESSAGE_CHARACTERS_MAX = 2000
"""How much of a tool's complaint goes into the exception."""


class CommandFailed(Exception):
    """A tool refused; its complaint is the message."""


async def run_command(clock: Clock, *command: str, stdin: str = "", network_namespace: str | None = None) -> str:
    """Run a tool to its end and answer what it printed; CommandFailed when it failed."""
    if network_namespace:
        command = ("nsenter", f"--net={network_namespace}", *command)
    # A file, not a pipe: a tool that ends without reading its input would close a pipe while it is written to.
    given = os.memfd_create("transaction")
    try:
        os.write(given, stdin.encode())
        os.lseek(given, 0, os.SEEK_SET)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=given,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '/usr/bin:/bin')}:{ROOT_FOLDERS}"},
        )
    except FileNotFoundError as failure:
        raise CommandFailed(f"{command[0]} is not installed") from failure
    finally:
        os.close(given)
    try:
        async with clock.timeout(COMMAND_TIMEOUT_S):
            output, complaint = await process.communicate()
    except BaseException as failure:
        if process.returncode is None:
            process.kill()
        await process.communicate()  # closes its pipes
        if isinstance(failure, TimeoutError):
            raise CommandFailed(f"{' '.join(command)} took longer than {COMMAND_TIMEOUT_S:.0f} s") from None
        raise
    if process.returncode:
        message = complaint.decode(errors="replace").strip()[:MESSAGE_CHARACTERS_MAX]
        raise CommandFailed(f"{' '.join(command)}: {message or f'exit code {process.returncode}'}")
    return output.decode(errors="replace")
