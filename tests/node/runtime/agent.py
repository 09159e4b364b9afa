"""An agent in a process of its own, for tests that kill it: starts one container, prints its id, and waits."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.node.runtime.conftest import Node, script, start


async def main(directory: str, archive: str, text: str) -> None:
    node = Node("oci", Path(directory))
    await node.runtime.start()
    await node.runtime.load_image(archive)
    sandbox = await node.runtime.run_sandbox(node.sandbox())
    print(await start(node.runtime, sandbox.id, script(text)), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
