"""Snapshots beside restic as in `snapshot_s3`, with a store that answers 50 ms late, as one in another town does.

A relay between the two holds back whatever goes either way for 25 ms, however much that is. Connecting costs nothing:
that favours whoever connects often.
"""

import sys

from figures import Figure
from snapshot_s3 import FILES, MIB, compared, stage

_PORT = 9977
_STEPS = {"first": "<= 1", "unchanged": "<= 1", "restore": "<= 1"}
_RELAY = """
import asyncio, sys
here, there = int(sys.argv[1]), int(sys.argv[2])

async def pump(reader, writer):
    loop, held = asyncio.get_running_loop(), asyncio.Queue()
    async def deliver():
        while (item := await held.get()) is not None:
            await asyncio.sleep(max(0, item[0] - loop.time()))
            writer.write(item[1])
            await writer.drain()
        writer.close()
    delivering = asyncio.create_task(deliver())
    while data := await reader.read(1 << 18):
        held.put_nowait((loop.time() + 0.025, data))
    held.put_nowait(None)
    await delivering

async def welcome(reader, writer):
    other = await asyncio.open_connection("127.0.0.1", there)
    await asyncio.gather(pump(reader, other[1]), pump(other[0], writer), return_exceptions=True)

async def main():
    server = await asyncio.start_server(welcome, "127.0.0.1", here)
    await server.serve_forever()

asyncio.run(main())
"""


def measure() -> list[Figure]:
    with stage() as (machine, store, small, mixed):
        near = store.endpoint.rpartition(":")[2]
        machine.spawn([sys.executable, "-c", _RELAY, str(_PORT), near], log=machine.folder / "relay.log")
        store.endpoint = f"http://127.0.0.1:{_PORT}"
        listens = f"until curl -s -o /dev/null {store.endpoint}; do sleep 0.1; done"
        machine.run(["timeout", "60", "bash", "-c", listens])
        return [
            *compared(machine, store, f"{FILES:,} small files, 50 ms away", small, _STEPS),
            *compared(machine, store, f"{MIB} MiB mixed, 50 ms away", mixed, _STEPS),
        ]
