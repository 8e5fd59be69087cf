"""Follow a part of the map and print what changes: python client-examples/python_client.py [ws://HOST:8081/ws] [w,s,e,n]

This is how a program uses batchcast's client: open it, read `ranked()`, wait for changes. Everything a client has to get
right (the order of applying, seq, digest, resync, resume, backoff, close codes) is in one file without dependencies on the
server, server/client.py; copy that file and this program runs anywhere that has `pip install websockets`.

A token, if you have one, goes into the environment (BATCHCAST_TOKEN), never into the address.
"""

import asyncio
import os
import sys

from server.client import Change, Client, Closed, Lost, Refusal

URL = "ws://127.0.0.1:8081/ws"
WORLD = (-180.0, -85.0, 180.0, 85.0)


async def follow(url: str, viewport: tuple[float, ...]) -> None:
    token = os.environ.get("BATCHCAST_TOKEN")
    async with Client(url, viewport=viewport, token=token, max_events=20, reasons=True) as client:
        print(f"{len(client.events)} events in view; the next batch is due at {client.registered.get('nextBatchAt')}")
        for place, event in enumerate(client.ranked()[:10], 1):
            print(f"{place:3}. {event['relevanceScore']:.4f} {event['emoji'] or ' '} {event['title']}")
        while True:
            tell(await client.next_change(), client)


def tell(change: Change, client: Client) -> None:
    true = "digest ok" if change.matches else "DIGEST DIFFERS, asking for a resync"
    print(f"{change.type}: +{len(change.creates)} ~{len(change.updates)} -{len(change.deletes)}, {true}")
    for event in change.creates:
        print(f"   + {event['title']}")
    for event_id in change.deletes:
        print(f"   - {event_id} ({change.reasons.get(event_id, 'gone')})")
    print(f"   holding {len(client.events)}, best: {best(client)}")


def best(client: Client) -> str:
    ranked = client.ranked()
    return str(ranked[0]["title"]) if ranked else "nothing"


def main() -> int:
    url = sys.argv[1] if len(sys.argv) > 1 else URL
    viewport = tuple(float(part) for part in sys.argv[2].split(",")) if len(sys.argv) > 2 else WORLD
    try:
        asyncio.run(follow(url, viewport))
    except (Closed, Lost, Refusal) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
