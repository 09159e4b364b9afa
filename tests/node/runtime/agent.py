"""An agent in a process of its own, for tests that kill it.

agent run DIRECTORY ARCHIVE SCRIPT   starts one container, prints its id, and waits
agent churn DIRECTORY ARCHIVE        starts and removes pods without end, a line for each
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.node.runtime.conftest import Node, runs, script, start


async def run(node: Node, text: str) -> None:
    sandbox = await node.runtime.run_sandbox(node.sandbox())
    print(await start(node.runtime, sandbox.id, script(text)), flush=True)
    await asyncio.Event().wait()


async def churn(node: Node) -> None:
    async def pod(number: int) -> None:
        round_number = 0
        while True:
            round_number += 1
            sandbox = await node.runtime.run_sandbox(node.sandbox(f"pod{number}-{round_number}"))
            container = await start(node.runtime, sandbox.id, runs())
            print(number, flush=True)
            await node.runtime.stop_container(container, 10)
            await node.runtime.remove_container(container)
            await node.runtime.remove_sandbox(sandbox.id)

    await asyncio.gather(*(pod(number) for number in range(3)))


async def main(what: str, directory: str, archive: str, *arguments: str) -> None:
    node = Node("oci", Path(directory))
    await node.runtime.start()
    await node.runtime.load_image(archive)
    await (run(node, *arguments) if what == "run" else churn(node))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
