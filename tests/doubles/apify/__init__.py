"""The scraping provider (Apify) on loopback: its HTTP API, its webhooks, its schedules, with every fault that they may have.

    async with Apify(reviews.World(seed=7).actors()) as double:
        double.url, double.token                       where it listens, what it lets in
    python -m tests.doubles.apify [--port 8098]        the same by hand, for `make demo`

What there is, under /v2, as api.apify.com has it (`acts` and `actors` are one):

    GET /users/me · GET /actors/{id} · POST /actors/{id}/runs (webhooks=base64) · GET /actors/{id}/runs · GET /actor-runs
    GET /actor-runs/{id} · POST /actor-runs/{id}/abort · GET /datasets/{id} · GET /datasets/{id}/items
    GET /key-value-stores/{id}/records/INPUT · GET POST /schedules · GET PUT DELETE /schedules/{id}

An actor is a function: input -> items (`platform.Produce`). How a run ends is an `Outcome`; what a request gets other than
the truth is an `Act`, scripted by the kind of request (`start`, `run`, `runs`, `items`, `input`, `schedules`, ...): an
answer before or after the thing was done, a cut connection, a delay. How a webhook is sent is a `Sending`.
"""

from tests.doubles.apify.http import Act, Apify
from tests.doubles.apify.platform import EVENTS, Outcome, Platform, Run
from tests.doubles.apify.sending import Sending

__all__ = ["EVENTS", "Act", "Apify", "Outcome", "Platform", "Run", "Sending"]
