"""`make demo`: the shop on a cluster of its own, on this machine, each step checked.

A frontend and a backend, each a Deployment behind a Service; the frontend finds the backend by its name while pods come
and go under constant load. The cluster has a data folder, a kubeconfig and a network of its own and is gone at the end.

What is shown is what was observed: by watches on the API, by requests through the kernel's service rules, by /proc. A
check that does not hold ends the demo with exit code 1. Without root, hollow nodes play the containers, and each step
says what that leaves out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

import images
import leftovers
from observe import (
    Answer,
    CheckFailed,
    Load,
    World,
    backends,
    complete,
    condition,
    failures,
    is_ending,
    is_ready,
    one_answer,
    percentile,
    ready_addresses,
    summary,
    versions,
)

from knarr.cli import kubeconfig as kubeconfigs
from knarr.cli.connection import ApiFailure, Connection

HERE = Path(__file__).parent
NAMESPACE = "shop"
NODE_PORT = 30080
URL = f"http://127.0.0.1:{NODE_PORT}/"
REQUESTS_PER_S = 30.0
EVEN_WITHIN = 0.15
SPREAD_REQUESTS = 300
ASKED_AT_ONCE = 8
PULL_GIVEN_UP_S_MAX = 90.0
"""By then no registry has answered a machine without a way out."""
PROXY_SETTLES_S = 0.3
"""From an endpoint's leave, as seen in the API, to the rules that know it."""
BRIDGE = "knarr-demo"
NETWORK = [
    *("--cluster-cidr", "10.245.0.0/16"),
    *("--service-cidr", "10.97.0.0/16"),
    *("--cluster-dns", "10.97.0.10"),
    *("--bridge-name", BRIDGE),
]

console = Console(highlight=False)


@dataclass
class Demo:
    """The cluster, the world as seen, and what was measured."""

    folder: Path
    runtime: str
    proxy_mode: str
    times: list[tuple[str, str]] = field(default_factory=list)
    connection: Connection = field(init=False)
    world: World = field(init=False)

    @property
    def real(self) -> bool:
        return self.runtime == "oci"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    # Doing: kubectl where there is one, else the product's own commands or a plain request.

    def up(self) -> str:
        flags = ["--runtime", self.runtime, "--proxy-mode", self.proxy_mode, "--listen", "0.0.0.0:0", *NETWORK]
        flags += [
            "--data-dir",
            str(self.data),
            "--kubeconfig",
            str(self.kubeconfig),
            "--node-port-range",
            "30000-30999",
        ]
        return self.knarr("up", "--detach", *flags)

    def knarr(self, *arguments: str) -> str:
        return run([sys.executable, "-m", "knarr.cli.main", *arguments])

    def kubectl(self, *arguments: str) -> str:
        return run(["kubectl", "--kubeconfig", str(self.kubeconfig), "-n", NAMESPACE, *arguments])

    def apply(self) -> None:
        if has_kubectl():
            self.kubectl("apply", "-f", str(HERE))
        else:
            self.knarr("apply", "--kubeconfig", str(self.kubeconfig), "-f", str(HERE))

    def set_image(self, deployment: str, image: str) -> None:
        if has_kubectl():
            self.kubectl("set", "image", f"deployment/{deployment}", f"{deployment}={image}")
            return
        containers = [{"name": deployment, "image": image}]
        self.patch(deployment, {"spec": {"template": {"spec": {"containers": containers}}}})

    def scale(self, deployment: str, replicas: int) -> None:
        if has_kubectl():
            self.kubectl("scale", f"deployment/{deployment}", f"--replicas={replicas}")
        else:
            self.patch(deployment, {"spec": {"replicas": replicas}})

    def undo(self, deployment: str) -> None:
        if has_kubectl():
            self.kubectl("rollout", "undo", f"deployment/{deployment}")
            return
        revision = "deployment.kubernetes.io/revision"
        older = sorted(
            self.world.all("ReplicaSet", app=deployment), key=lambda rs: int(rs["metadata"]["annotations"][revision])
        )
        self.patch(deployment, {"spec": {"template": older[-2]["spec"]["template"]}})

    def patch(self, deployment: str, patch: dict[str, Any]) -> None:
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{deployment}"
        self.connection.send("PATCH", path, patch, content_type="application/strategic-merge-patch+json")

    def delete_pod(self, name: str) -> None:
        self.connection.send("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")

    # Seeing.

    def ready_pods(self, app: str) -> list[dict[str, Any]]:
        return [pod for pod in self.world.all("Pod", app=app) if is_ready(pod) and not is_ending(pod)]

    def endpoints(self, service: str) -> set[str]:
        return ready_addresses(self.world.all("EndpointSlice", **{"kubernetes.io/service-name": service}))

    def rolled_out(self, deployment: str, timeout_s: float = 40.0) -> float:
        """Wait for the rollout's end; answers the moment."""
        self.world.until(
            f"rollout of {deployment}", lambda: complete(self.world.one("Deployment", deployment)), timeout_s
        )
        return time.monotonic()

    def note(self, what: str, seconds_s: float) -> None:
        self.times.append((what, f"{seconds_s * 1000:,.0f} ms" if seconds_s < 10 else f"{seconds_s:.1f} s"))


# The seven steps.


def frontend_reaches_backends(demo: Demo) -> None:
    began_s = time.monotonic()
    demo.apply()
    first = demo.world.until(
        "first pod ready", lambda: demo.world.all("Pod") and any(map(is_ready, demo.world.all("Pod"))), 30
    )
    assert first
    demo.note("first pod ready, from the apply command", time.monotonic() - began_s)
    demo.rolled_out("backend")
    demo.rolled_out("frontend")
    demo.note("5 pods of 2 deployments ready", time.monotonic() - began_s)
    demo.world.until("3 backend endpoints", lambda: len(demo.endpoints("backend")) == 3, 10)
    said(f"5 pods ready: backends {', '.join(sorted(demo.endpoints('backend')))}")
    if not demo.real:
        simulated("no packet flows: the addresses are invented, the frontend does not run")
        return
    answers = ask(SPREAD_REQUESTS)
    expect(not failures(answers), f"{SPREAD_REQUESTS} requests at {URL} all answered", failures(answers))
    spread = backends(answers)
    even = SPREAD_REQUESTS / 3
    off = max(abs(count - even) / even for count in spread.values())
    told = ", ".join(f"{name} {count}" for name, count in sorted(spread.items()))
    expect(len(spread) == 3 and off <= EVEN_WITHIN, f"spread over 3 backends within {off:.0%} of even: {told}")
    said(f"an answer: {answers[0].body}")


def killed_container_restarts(demo: Demo) -> None:
    pod = demo.ready_pods("backend")[0]
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    if not demo.real:
        simulated("there is no process to kill; nothing is shown in this step")
        return
    with load() as running:
        running.settle(1.0)
        killed_s = time.monotonic()
        process = first_process(pod["metadata"]["uid"])
        os.kill(process, signal.SIGKILL)

        def restarted() -> bool:
            now = demo.world.one("Pod", name)
            statuses = now["status"].get("containerStatuses") or [] if now else []
            return bool(statuses) and statuses[0]["restartCount"] == 1 and is_ready(now)

        demo.world.until(f"{name} restarted", restarted, 20)
        back_s = time.monotonic()
        demo.world.until(f"{address} is an endpoint again", lambda: address in demo.endpoints("backend"), 10)
        running.settle(1.0)
    demo.note("container killed, restarted and ready", back_s - killed_s)
    said(f"process {process} of {name} killed; restartCount is 1, ready again after {back_s - killed_s:.2f} s")
    left_s = next(
        (
            change.at_s
            for change in demo.world.since(killed_s, "EndpointSlice")
            if change.object
            and change.object["metadata"]["labels"].get("kubernetes.io/service-name") == "backend"
            and address not in ready_addresses([change.object])
        ),
        back_s,
    )
    after = failures(running.between(left_s + PROXY_SETTLES_S))
    during = failures(running.between(killed_s, left_s + PROXY_SETTLES_S))
    told = f"the endpoint left after {(left_s - killed_s) * 1000:.0f} ms; {len(during)} requests failed until then"
    expect(not after, f"{told}, none afterwards", after)


def deleted_pod_is_replaced(demo: Demo) -> None:
    pod = demo.ready_pods("backend")[0]
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    others = {each["metadata"]["name"] for each in demo.world.all("Pod")}
    with maybe_load(demo) as running:
        deleted_s = time.monotonic()
        demo.delete_pod(name)

        def successor() -> Any:
            return next((each for each in demo.ready_pods("backend") if each["metadata"]["name"] not in others), None)

        fresh = demo.world.until("a new pod is ready", successor, 20)
        replaced_s = time.monotonic()
        demo.world.until(f"{name} is gone", lambda: demo.world.one("Pod", name) is None, 20)
        demo.rolled_out("backend")
        if running:
            running.settle(1.0)
    demo.note("pod deleted, its successor ready", replaced_s - deleted_s)
    expect(
        fresh["status"]["podIP"] != address,
        f"{name} ({address}) deleted; {fresh['metadata']['name']} ({fresh['status']['podIP']}) took over",
    )
    expect_no_failure(running, deleted_s)


def rolling_update(demo: Demo) -> None:
    with maybe_load(demo) as running:
        began_s = time.monotonic()
        demo.set_image("backend", "shop-backend:v2")
        done_s = demo.rolled_out("backend")
        demo.world.until("the old pods are gone", lambda: len(demo.world.all("Pod", app="backend")) == 3, 20)
        gone_s = time.monotonic()
        if running:
            running.settle(1.0)
    demo.note("rolling update of 3 backends", done_s - began_s)
    most, least = extremes(demo, began_s)
    expect(most <= 4 and least >= 3, f"never more than {most} pods that are not ending, never fewer than {least} ready")
    expect_no_failure(running, began_s)
    if running:
        between = versions(running.between(began_s, done_s))
        after = versions(running.between(gone_s))
        told = f"{between['v1']} answers of v1 and {between['v2']} of v2 during the update, only v2 afterwards"
        expect(between["v1"] > 0 and between["v2"] > 0 and not after["v1"], told)


def stuck_rollout_is_undone(demo: Demo) -> None:
    with maybe_load(demo) as running:
        began_s = time.monotonic()
        demo.set_image("backend", "shop-backend:missing")

        def passed() -> Any:
            deployment = demo.world.one("Deployment", "backend")
            progressing = condition(deployment or {}, "Progressing")
            return progressing.get("status") == "False" and progressing

        progressing = demo.world.until("the progress deadline passes", passed, 30)
        passed_s = time.monotonic() - began_s
        expect(
            progressing["reason"] == "ProgressDeadlineExceeded",
            f"after {passed_s:.1f} s (progressDeadlineSeconds is 10): Progressing=False, {progressing['reason']}",
        )

        def stuck() -> Any:
            there = [pod for pod in demo.world.all("Pod", app="backend") if not is_ready(pod) and not is_ending(pod)]
            return len(there) == 1 and "Image" in summary(there[0]) and there[0]

        pod = demo.world.until("the new pod tells of its image", stuck, PULL_GIVEN_UP_S_MAX)
        said(f"the new pod: {summary(pod)[:150]}")
        if demo.real:
            expect(len(demo.endpoints("backend")) == 3, "the 3 pods of the old version serve on")
        undone_s = time.monotonic()
        demo.undo("backend")
        done_s = demo.rolled_out("backend")
        if running:
            running.settle(1.0)
    demo.note("stuck rollout undone", done_s - undone_s)
    deployment = demo.world.one("Deployment", "backend") or {}
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    expect(image == "shop-backend:v2", f"undone: the deployment is complete with {image}")
    expect_no_failure(running, began_s)


def scales(demo: Demo) -> None:
    with maybe_load(demo) as running:
        began_s = time.monotonic()
        demo.scale("backend", 6)
        demo.world.until("6 backends", lambda: len(demo.endpoints("backend")) == 6, 20)
        demo.note("scaled from 3 to 6 endpoints", time.monotonic() - began_s)
        if running:
            running.settle(1.0)
        shrunk_s = time.monotonic()
        demo.scale("backend", 2)
        demo.world.until("2 backends", lambda: len(demo.endpoints("backend")) == 2, 20)
        demo.note("scaled from 6 to 2 endpoints", time.monotonic() - shrunk_s)
        demo.world.until("the others are gone", lambda: len(demo.world.all("Pod", app="backend")) == 2, 20)
        if running:
            running.settle(1.0)
    if running:
        served = len(backends(running.between(shrunk_s - 1.0, shrunk_s)))
        said(f"6 endpoints, {served} of them answered in the last second; then 2 endpoints")
    expect_no_failure(running, began_s)


def removed(demo: Demo, before: dict[str, set[str]]) -> None:
    began_s = time.monotonic()
    demo.connection.send("DELETE", f"/api/v1/namespaces/{NAMESPACE}")

    def gone() -> bool:
        try:
            demo.connection.get(f"/api/v1/namespaces/{NAMESPACE}")
        except ApiFailure as failure:
            return failure.code == 404
        return False

    until_s = time.monotonic() + 40
    while not gone():
        if time.monotonic() > until_s:
            raise CheckFailed("the namespace is still there after 40 s")
        time.sleep(0.05)
    demo.note("namespace deleted with all that is in it", time.monotonic() - began_s)
    began_s = time.monotonic()
    demo.knarr("down", "--purge", "--data-dir", str(demo.data))
    demo.note("cluster down", time.monotonic() - began_s)
    left = leftovers.left(before, leftovers.snapshot(demo.data, BRIDGE))
    expect(not left, f"nothing left behind: no {', '.join(before)}", left)
    expect(not demo.data.exists(), "the data folder is gone")
    held = kubeconfigs.default_path() if demo.kubeconfig == kubeconfigs.default_path() else demo.kubeconfig
    expect("server:" not in (held.read_text() if held.exists() else ""), "the kubeconfig names the cluster no more")


STEPS: list[tuple[str, Callable[[Demo], None]]] = [
    ("A frontend at a port of this machine asks the backend by name", frontend_reaches_backends),
    ("kill -9 of a container's process", killed_container_restarts),
    ("A pod is deleted under load", deleted_pod_is_replaced),
    ("A second version, rolled out under load", rolling_update),
    ("An image that does not exist: the rollout sticks, and is undone", stuck_rollout_is_undone),
    ("Scaled to 6, then to 2, under load", scales),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtime", choices=["oci", "sim"], default="oci" if os.geteuid() == 0 else "sim")
    parser.add_argument("--proxy-mode", choices=["auto", "nftables", "iptables"], default="auto")
    parsed = parser.parse_args()
    if parsed.runtime == "oci" and os.geteuid() != 0:
        print("containers need root; without it: --runtime sim", file=sys.stderr)
        return 2
    if parsed.runtime == "oci" and not images.BUSYBOX.exists():
        print(
            f"{images.BUSYBOX} is needed for the shop's images (Debian: apt-get install busybox-static)",
            file=sys.stderr,
        )
        return 2
    # Below /var/tmp, not /tmp: where /tmp is an overlay or small, containers' file systems would not fit there.
    folder = Path(tempfile.mkdtemp(prefix="knarr-demo-", dir="/var/tmp"))
    demo = Demo(folder, parsed.runtime, parsed.proxy_mode)
    try:
        play(demo)
    except (CheckFailed, ApiFailure, subprocess.CalledProcessError, OSError) as error:
        console.print(f"  [red bold]✗[/] {describe(error)}")
        log = demo.data / "knarr.log"
        if log.exists():
            kept = Path(tempfile.gettempdir()) / "knarr-demo.log"
            shutil.copy(log, kept)
            console.print(f"    the cluster's log is kept in {kept}")
        return 1
    finally:
        if demo.data.exists():
            subprocess.run(
                [sys.executable, "-m", "knarr.cli.main", "down", "--purge", "--data-dir", str(demo.data)], check=False
            )
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def play(demo: Demo) -> None:
    began_s = time.monotonic()
    if not demo.real:
        console.print(
            "[yellow]Hollow nodes play the containers (--runtime sim). The API, the store, the controllers and the"
            " scheduler are real;\nprocesses, network and kernel rules are not there.[/]"
        )
    if not has_kubectl():
        console.print("[yellow]No kubectl here: `knarr apply` and plain requests take its place.[/]")
    before = leftovers.snapshot(demo.data, BRIDGE)
    heading(0, "A cluster on this machine")
    archives = images.write(demo.folder / "images") if demo.real else []
    up_s = time.monotonic()
    output = demo.up()
    demo.note("`knarr up --detach` done", time.monotonic() - up_s)
    ready = re.search(r"ready in (\d+) ms", output)
    if ready is None:
        raise CheckFailed(f"knarr up did not say that it is ready: {output}")
    demo.note("cluster ready, from the start of its process", int(ready[1]) / 1000)
    said(f"ready in {ready[1]} ms")
    for archive in archives:
        said(demo.knarr("image", "load", "--data-dir", str(demo.data), str(archive)).strip())
    access = kubeconfigs.read(demo.kubeconfig)
    demo.connection = Connection(access)
    demo.world = World(access, NAMESPACE)
    for number, (title, step) in enumerate(STEPS, 1):
        heading(number, title)
        step(demo)
    heading(7, "Everything removed")
    removed(demo, before)
    table = Table(title="What it took", title_justify="left")
    table.add_column("what")
    table.add_column("time", justify="right")
    for what, took in demo.times:
        table.add_row(what, took)
    table.add_row("the whole demo", f"{time.monotonic() - began_s:.1f} s")
    console.print()
    console.print(table)


# Telling and checking.


def heading(number: int, title: str) -> None:
    console.print(f"\n[bold]{number}. {title}[/]" if number else f"[bold]{title}[/]")


def said(text: str) -> None:
    console.print(f"  [green]✓[/] {text}", markup=True)


def simulated(text: str) -> None:
    console.print(f"  [yellow]~[/] simulated: {text}")


def expect(holds: bool, what: str, evidence: list[Any] | None = None) -> None:
    """Say what was observed, or end the demo."""
    if holds:
        said(what)
        return
    shown = "".join(f"\n      {each}" for each in (evidence or [])[:10])
    raise CheckFailed(f"does not hold: {what}{shown}")


def expect_no_failure(running: Load | None, from_s: float) -> None:
    if running is None:
        return
    answers = running.between(from_s)
    slow_ms = percentile(answers, 0.99)
    told = f"{len(answers)} requests at {REQUESTS_PER_S:.0f}/s meanwhile, none failed; p99 {slow_ms:.0f} ms"
    expect(bool(answers) and not failures(answers), told, failures(answers))


def describe(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{' '.join(map(str, error.cmd))}: {(error.stderr or '').strip() or error}"
    return str(error)


def extremes(demo: Demo, from_s: float) -> tuple[int, int]:
    """Most pods that are not ending, fewest that are ready, over every state that the watch showed since."""
    pods: dict[str, dict[str, Any]] = {}
    most, least = 0, 1 << 30
    for change in demo.world.since(0.0, "Pod"):
        if change.object is None:
            pods.pop(change.name, None)
        elif change.object["metadata"]["labels"].get("app") == "backend":
            pods[change.name] = change.object
        if change.at_s >= from_s:
            active = [pod for pod in pods.values() if not is_ending(pod)]
            most = max(most, len(active))
            least = min(least, sum(map(is_ready, active)))
    return most, least


@contextmanager
def load() -> Iterator[Load]:
    running = Load(URL, REQUESTS_PER_S)
    with console.status("under load"):
        try:
            yield running
        finally:
            running.close()


@contextmanager
def maybe_load(demo: Demo) -> Iterator[Load | None]:
    """Load that has run for a second, where there is something to load."""
    if not demo.real:
        yield None
        return
    with load() as running:
        running.settle(1.0)
        yield running


def ask(count: int) -> list[Answer]:
    """`count` requests, as fast as this machine answers a few at once."""
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return list(pool.map(lambda _: one_answer(URL), range(count)))


def first_process(pod_uid: str) -> int:
    """The process in the pod's cgroup that is number 1 in its own process namespace."""
    names = (pod_uid, pod_uid.replace("-", "_"))
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if not any(name in (entry / "cgroup").read_text() for name in names):
                continue
            numbers = re.search(r"^NSpid:\s+(.*)$", (entry / "status").read_text(), re.MULTILINE)
        except OSError:
            continue
        if numbers and len(numbers[1].split()) > 1 and numbers[1].split()[-1] == "1":
            return int(entry.name)
    raise CheckFailed(f"no process found in the cgroup of pod {pod_uid}")


def has_kubectl() -> bool:
    return shutil.which("kubectl") is not None


def run(command: list[str]) -> str:
    """Run to the end; answers what it printed, both streams. Raises CalledProcessError."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
