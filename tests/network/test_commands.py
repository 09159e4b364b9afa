"""Running the kernel's tools."""

import asyncio
import shutil

import pytest

from knarr.clock import SystemClock
from knarr.network import commands
from knarr.network.commands import CommandFailed, run_command

CLOCK = SystemClock()


async def test_input_goes_in_and_output_comes_out() -> None:
    assert await run_command(CLOCK, "cat", stdin="one\ntwo\n") == "one\ntwo\n"


async def test_a_refusal_is_an_error_with_the_tools_own_words() -> None:
    with pytest.raises(CommandFailed, match="no such thing"):
        await run_command(CLOCK, "sh", "-c", "echo no such thing >&2; exit 3")


async def test_a_missing_tool_is_named() -> None:
    with pytest.raises(CommandFailed, match="knarr-has-no-such-tool is not installed"):
        await run_command(CLOCK, "knarr-has-no-such-tool")


async def test_a_tool_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "COMMAND_TIMEOUT_S", 0.05)
    with pytest.raises(CommandFailed, match="took longer"):
        await run_command(CLOCK, "sleep", "1000")


async def test_cancelling_kills_the_tool() -> None:
    task = asyncio.create_task(run_command(CLOCK, "sleep", "1000"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_tools_are_found_without_the_administrators_path(monkeypatch: pytest.MonkeyPatch) -> None:
    where = shutil.which("iptables", path="/usr/sbin:/sbin")
    if where is None:
        pytest.skip("needs iptables, which only administrators have on their path")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "iptables" in await run_command(CLOCK, "iptables", "--version")
