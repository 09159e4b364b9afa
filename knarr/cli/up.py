"""`knarr up`: start the cluster in this process, or with --detach in one of its own.

What runs in that process, and in which order it starts, is told by `knarr.cli.process`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from threading import Thread

from knarr.cli.exit_codes import FAILED, OK, USAGE
from knarr.cli.flags import flags
from knarr.cli.lock import DataFolderHeld, DataFolderLock
from knarr.cli.progress import PipeProgress, Progress, TerminalProgress, process_start_s
from knarr.config import NOT_EXCLUDED, Config, ConfigError, load

COLLECTION_THRESHOLDS = (100_000, 50, 1000)
"""When Python looks for cycles: seldom, and mostly among young objects. The API's own objects are trees; with the
defaults, a cluster of 10,000 pods was stopped for 130 ms again and again (p99 of a create, `make bench`)."""

Live = Callable[[DataFolderLock, Progress], int]
"""The life of a process on its data folder; answers the exit code."""
LOG_TAIL_LINES = 20
"""How much of its log is shown when a detached start failed without a word."""


def up(parsed: argparse.Namespace) -> int:
    """Answers the exit code: 0 after an orderly end (detached: once ready)."""
    start_s = process_start_s()
    given = {flag.name: getattr(parsed, flag.name) for flag in flags() if hasattr(parsed, flag.name)}
    try:
        config = load(parsed.config, given)
        if config.token_auth_file or config.authentication_config:
            _check_access(config)
        if config.scheduler_config:
            _check_scheduling(config)
        _check_ingress(config)
        if config.load_balancer_pools or config.load_balancer != "local":
            _check_balancing(config)
    except ConfigError as error:
        for problem in error.problems:
            print(f"knarr: {problem}", file=sys.stderr)
        return USAGE
    lacking = machine_problem(config.runtime)
    if lacking is not None:
        print(f"knarr: {lacking}", file=sys.stderr)
        return FAILED

    def live(lock: DataFolderLock, progress: Progress) -> int:
        with prepared():
            from knarr.cli.process import main
        return main(config, lock, progress, start_s)

    if parsed.detach:
        return detach(config.data_path, live)
    return hold(config.data_path, TerminalProgress(), live)


def _check_access(config: Config) -> None:
    """Read the files that are named, so that what is wrong with them is told before anything starts."""
    from knarr.cli.access import access_settings  # only who configures it pays for the import
    from knarr.clock import SystemClock

    access_settings(config, SystemClock())


def _check_scheduling(config: Config) -> None:
    from knarr.cli.scheduling import profiles  # as above

    profiles(config)


def _check_ingress(config: Config) -> None:
    if config.ingress_nodes in ("", NOT_EXCLUDED):
        return
    from knarr.api.selectors import parse_selector  # as above

    try:
        parse_selector(config.ingress_nodes)
    except ValueError as error:
        raise ConfigError([f"ingressNodes: must be a label selector such as {NOT_EXCLUDED}: {error}"]) from None


def _check_balancing(config: Config) -> None:
    from knarr.cli.balancing import check  # as above

    check(config)


def hold(folder: Path, progress: Progress, live: Live) -> int:
    """Hold the data folder and run what lives on it until that is told to end."""
    try:
        return live(DataFolderLock.acquire(folder), progress)
    except DataFolderHeld as error:
        progress.say(f"knarr: {error}")
    except OSError as error:
        progress.say(f"knarr: {error.filename or folder}: {error.strerror}")
    progress.settle(FAILED)
    return FAILED


@contextmanager
def prepared() -> Iterator[None]:
    """Import what is to live for as long as the process: collections need not look at it again."""
    gc.disable()
    # aiohttp reads the machine's certificate authorities when it is imported: outside the interpreter's lock, so beside
    # the other imports.
    Thread(target=import_module, args=("aiohttp",), daemon=True).start()
    yield
    gc.freeze()
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    gc.enable()


def machine_problem(runtime: str) -> str | None:
    """Why this machine or this user can't run what is asked for, with what can be done about it."""
    if runtime == "sim":
        return None
    from knarr.cli.machine import installed

    if os.geteuid() != 0:
        return "containers need root; run as root, or try `knarr up --runtime sim` (hollow nodes, nothing really runs)"
    for commands, package in ((["conmon"], "conmon"), (["runc", "crun"], "runc"), (["nft", "iptables"], "nftables")):
        if not any(installed(command) for command in commands):
            return (
                f"{' or '.join(commands)} is not installed (Debian: apt-get install {package}); "
                "without it there is `knarr up --runtime sim` (hollow nodes, nothing really runs)"
            )
    return None


def detach(folder: Path, live: Live) -> int:
    """Run it in a session of its own; print what it says until it is ready or has failed.

    The process is forked, not executed anew: what is imported by now need not be imported again. Raises OSError when
    the folder can't be had.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_path = folder / "knarr.log"
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = FAILED
        try:
            os.close(reading)
            _background(log)
            code = hold(folder, PipeProgress(writing), live)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with suppress(OSError):  # the disk of the log is full
                sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    os.close(log)
    return _wait_until_settled(pid, reading, log_path)


def _background(log: int) -> None:
    """Leave the terminal: a session of its own, no input, output to the log."""
    os.setsid()
    if named := os.environ.get("KUBECONFIG"):
        os.environ["KUBECONFIG"] = os.pathsep.join(os.path.abspath(each) for each in named.split(os.pathsep) if each)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(nothing)
    os.close(log)


def _wait_until_settled(pid: int, reading: int, log_path: Path) -> int:
    with open(reading) as lines:
        for line in lines:
            message = json.loads(line)
            if "exit" in message:
                if message["exit"] == OK:
                    print(f"running in the background as process {pid}; its log is {log_path}", file=sys.stderr)
                return int(message["exit"])
            print(message["say"], file=sys.stderr, flush=True)
    _, status = os.waitpid(pid, 0)
    print(f"knarr: the start ended without a word (status {os.waitstatus_to_exitcode(status)}):", file=sys.stderr)
    for line in log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]:
        print(f"  {line}", file=sys.stderr)
    return FAILED
