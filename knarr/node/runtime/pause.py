"""The first process of a pod whose containers share their processes (shareProcessNamespace): a program of its own.

A process namespace lives as long as its first process, and that one inherits, and has to bury, those whose parents are
gone. Upstream's pods have a `pause` process for it; this is the same. It sees nothing of the machine: its root is an
empty file system, and it has no rights, for containers may look at it by /proc/1.

    python -I -S pause.py < FOLDER, and a line for each cgroup.procs

FOLDER is an empty folder. The program prints the number of the process and ends, the process stays. What it needs comes
by its standard input, for containers see its command line.
"""

import ctypes
import os
import platform
import signal
import sys

CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000
MNT_DETACH = 0x2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
"""The number of the system call, for which the C library has no name."""
NOBODY = 65535
"""As whom upstream's pause process runs."""


def main(folder: str, groups: list[str]) -> None:
    for group in groups:
        with open(group, "w", encoding="ascii") as file:
            file.write("0")  # this process, and with it the next
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(CLONE_NEWNS | CLONE_NEWPID))
    if child := os.fork():
        print(child)
        return
    _hide_the_machine(libc, folder)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    nothing = os.open("/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.closerange(3, 256)
    while True:
        signal.pause()


def _hide_the_machine(libc: ctypes.CDLL, folder: str) -> None:
    """An empty file system as root, in a mount namespace of its own: `..` leads nowhere either."""
    _check(libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    _check(libc.mount(b"pause", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(flags), b"size=4k,mode=755"))
    os.chdir(folder)
    open("null", "wb").close()
    _check(libc.syscall(PIVOT_ROOT[platform.machine()], b".", b"."))
    _check(libc.umount2(b".", MNT_DETACH))
    os.chdir("/")
    os.chmod("null", 0o666)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    first, *others = sys.stdin.read().splitlines()
    main(first, others)
