"""How long after the write a NetworkPolicy is in the kernel, with many pods on the node."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator

from bench import clusters
from bench.document import Figure

TABLE = "knarr-bench-policies"
"""Of bench.clusters' bridge."""
POLICIES = 200
MEASURED = 40
WAIT_S_MAX = 10.0


def policies() -> Iterator[Figure]:
    if os.geteuid() != 0:
        yield Figure("NetworkPolicy, write → kernel", "not measured: needs root", "< 200 ms")
        return
    with clusters.knarr("--runtime", "oci") as measured:
        connection = measured.connection()
        path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
        times = []
        for number in range(POLICIES):
            peers = [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": f"a{number}"}}}]
            spec = {"podSelector": {}, "ingress": [{"from": peers, "ports": [{"port": 80}]}]}
            body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec}
            connection.send("POST", path, {**body, "metadata": {"name": f"p{number}"}})
            if number >= POLICIES - MEASURED:
                times.append(_until_in_kernel(f"-ingress-default/p{number} "))
        connection.close()
    times.sort()
    yield Figure(
        f"NetworkPolicy: answer to the write → in the kernel, {POLICIES} policies (p50, slowest of {MEASURED})",
        f"{statistics.median(times):,.0f} ms, {times[-1]:,.0f} ms",
        "< 200 ms",
    )


def _until_in_kernel(text: str) -> float:
    began_s = time.perf_counter()
    while time.perf_counter() < began_s + WAIT_S_MAX:
        listed = subprocess.run(["nft", "list", "table", "inet", TABLE], capture_output=True, text=True, check=True)
        if text in listed.stdout:
            return (time.perf_counter() - began_s) * 1e3
    raise RuntimeError(f"{text} did not come into the kernel")
