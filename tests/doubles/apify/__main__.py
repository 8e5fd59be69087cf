"""The double by hand: `python -m tests.doubles.apify`; see the package's docstring."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time

from tests.doubles.apify import growing
from tests.doubles.apify.http import TOKEN, Apify
from tests.doubles.apify.reviews import World
from tests.doubles.apify.sending import Sending


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.doubles.apify",
        description="A scraping provider on loopback, for schedules and tracking to start runs at.",
        epilog=f"The token is {TOKEN}. Set APIFY_URL to the address that is printed, and APIFY_TOKEN.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port; 0 picks a free one (0)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same reviews (1)")
    parser.add_argument("--reviews", type=int, default=12, help="reviews of a place (12)")
    parser.add_argument("--run-ms", type=float, default=2_000, help="how long a run takes (2000)")
    parser.add_argument("--noise", type=int, default=1, help="places in each dataset that nobody asked for (1)")
    parser.add_argument(
        "--missing", action="append", default=[], help="a place or post of which nothing is found; may be repeated"
    )
    parser.add_argument("--since", type=float, help="when the views of posts began to grow, in epoch seconds (now)")
    parser.add_argument("--no-webhooks", action="store_true", help="nobody is told of a run's end")
    return parser


async def _serve(chosen: argparse.Namespace) -> None:
    world = World(seed=chosen.seed, reviews=chosen.reviews, noise=chosen.noise, missing=set(chosen.missing))
    posts = growing.actors(seed=chosen.seed, missing=set(chosen.missing), clock=time.time, since=chosen.since)
    double = Apify({**world.actors(), **posts}, run_s=chosen.run_ms / 1000, seed=chosen.seed, clock=True)
    double.sending = Sending(never=chosen.no_webhooks, retry_s=1.0)
    await double.start(chosen.host, chosen.port)
    print(double.url, flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await double.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(arguments().parse_args()))
