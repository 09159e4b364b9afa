"""Reading logs in CRI format."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from knarr.client.nodes import LogOptions
from knarr.node import logs
from knarr.node.inotify import Inotify

TIME = "2026-01-01T00:00:{:02}.000000000+00:00"


def entry(second: int, text: str, tag: str = "F", stream: str = "stdout") -> str:
    return f"{TIME.format(second)} {stream} {tag} {text}\n"


@pytest.fixture
async def inotify() -> AsyncIterator[Inotify]:
    made = Inotify()
    yield made
    made.close()


async def read(path: Path, inotify: Inotify, **options: Any) -> str:
    chosen = LogOptions("main", **options)
    wake = asyncio.Event()
    return b"".join([chunk async for chunk in logs.read(str(path), chosen, inotify, lambda: True, wake)]).decode()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "one\ntwo\nlong line\nfour\n"),
        ({"tail_lines": 0}, ""),
        ({"tail_lines": 1}, "four\n"),
        ({"tail_lines": 2}, "long line\nfour\n"),
        ({"tail_lines": 99}, "one\ntwo\nlong line\nfour\n"),
        ({"since_s": 1767225602.0}, "long line\nfour\n"),
        ({"limit_bytes": 6}, "one\ntw"),
        ({"limit_bytes": 3, "tail_lines": 1}, "fou"),
        (
            {"timestamps": True, "tail_lines": 2},
            f"{TIME.format(2)} long line\n{TIME.format(4)} four\n",
        ),
    ],
)
async def test_what_is_chosen(options: dict[str, Any], text: str, tmp_path: Path, inotify: Inotify) -> None:
    path = tmp_path / "0.log"
    path.write_text(
        entry(0, "one")
        + entry(1, "two", stream="stderr")
        + entry(2, "long ", "P")
        + entry(3, "line")
        + "not a log line\n"
        + entry(4, "four")
    )
    assert await read(path, inotify, **options) == text


async def test_a_tail_of_a_log_larger_than_a_block(tmp_path: Path, inotify: Inotify) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(entry(number % 60, f"line {number} " + "x" * 90) for number in range(3000)))
    assert path.stat().st_size > 4 * logs.BLOCK_BYTES
    lines = (await read(path, inotify, tail_lines=1500)).splitlines()
    assert len(lines) == 1500
    assert lines[0].startswith("line 1500 ")
    assert lines[-1].startswith("line 2999 ")


@pytest.mark.parametrize("tail", [1, 3])
async def test_what_is_written_while_it_is_read_is_not_among_the_last_lines(
    tail: int, tmp_path: Path, inotify: Inotify, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(entry(number, f"line {number}") for number in range(5)))
    looked = logs.tail_offset

    def written_meanwhile(*arguments: Any) -> int:
        found = looked(*arguments)
        with path.open("a") as file:
            file.write(entry(5, "one more"))
        return found

    monkeypatch.setattr(logs, "tail_offset", written_meanwhile)
    told = (await read(path, inotify, tail_lines=tail)).splitlines()
    assert told == [f"line {number}" for number in range(5)][-tail:]


async def test_a_line_that_is_being_written_is_none_yet(tmp_path: Path, inotify: Inotify) -> None:
    path = tmp_path / "0.log"
    path.write_text(entry(0, "one") + entry(1, "two")[:-2])
    assert await read(path, inotify, tail_lines=1) == "one\n"


async def test_a_carriage_return_ends_no_line(tmp_path: Path, inotify: Inotify) -> None:
    path = tmp_path / "0.log"
    path.write_bytes("".join(entry(number, f"1%\r2%\r{number}") for number in range(3)).encode())
    assert (await read(path, inotify, tail_lines=2)).split("\n") == ["1%\r2%\r1", "1%\r2%\r2", ""]
    assert logs.last_lines(str(path), 2, 100) == b"1%\r2%\r1\n1%\r2%\r2\n"


async def test_a_log_that_was_never_written_is_empty(tmp_path: Path, inotify: Inotify) -> None:
    assert await read(tmp_path / "none.log", inotify) == ""


async def test_following_sends_each_line_when_it_is_written_and_ends_with_the_container(
    tmp_path: Path, inotify: Inotify
) -> None:
    path = tmp_path / "0.log"
    path.write_text(entry(0, "one"))
    over = False
    wake = asyncio.Event()
    chunks = logs.read(str(path), LogOptions("main", follow=True), inotify, lambda: over, wake)
    assert await anext(chunks) == b"one\n"
    for number, text in enumerate(("two", "three"), 1):
        following = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        with path.open("a") as file:
            file.write(entry(number, text))
        assert await asyncio.wait_for(following, 30) == f"{text}\n".encode()
    following = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    # What it wrote last is sent even when its end is told at the same time.
    with path.open("a") as file:
        file.write(entry(9, "last"))
    over = True
    wake.set()
    assert await asyncio.wait_for(following, 30) == b"last\n"
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


async def test_following_goes_on_in_the_new_file_after_a_rotation(tmp_path: Path, inotify: Inotify) -> None:
    path = tmp_path / "0.log"
    path.write_text(entry(0, "one"))
    wake = asyncio.Event()
    chunks = logs.read(str(path), LogOptions("main", follow=True), inotify, lambda: False, wake)
    assert await anext(chunks) == b"one\n"
    following = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    path.rename(tmp_path / "0.log.old")
    path.write_text(entry(1, "two"))
    wake.set()
    assert await asyncio.wait_for(following, 30) == b"two\n"
    await chunks.aclose()  # type: ignore[attr-defined]


async def test_two_followers_of_one_log(tmp_path: Path, inotify: Inotify) -> None:
    path = tmp_path / "0.log"
    path.write_text(entry(0, "one"))
    options = LogOptions("main", follow=True)
    first = logs.read(str(path), options, inotify, lambda: False, asyncio.Event())
    second = logs.read(str(path), options, inotify, lambda: False, asyncio.Event())
    assert await anext(first) == await anext(second) == b"one\n"
    await first.aclose()  # type: ignore[attr-defined]
    following = asyncio.ensure_future(anext(second))
    await asyncio.sleep(0)
    with path.open("a") as file:
        file.write(entry(1, "two"))
    assert await asyncio.wait_for(following, 30) == b"two\n"
    await second.aclose()  # type: ignore[attr-defined]


def test_the_last_lines_for_a_termination_message(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(entry(0, f"line {number}") for number in range(100)))
    assert logs.last_lines(str(path), 2, 100) == b"line 98\nline 99\n"
    assert logs.last_lines(str(path), 80, 8) == b"line 99\n"
    assert logs.last_lines(str(tmp_path / "none"), 80, 8) == b""
