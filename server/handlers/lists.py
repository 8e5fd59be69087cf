"""Lists of contacts (audiences) over HTTP, and the providers' API keys that they are imported with.

A user sees and changes its own, an admin everybody's; another's is not found, like one that there is not. The value of a key
goes in and never comes out: not in an answer, not in the audit trail, not in a log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from server.batching.imports.provider import Check, CredentialId
from server.batching.imports.store import Contact
from server.batching.imports.vault import LISTED_MOST, Kept
from server.core.identity import Identity
from server.edge.web import json, json_object, whole_number
from server.errors import Code, Refused
from server.handlers.admin import SMALL_BODY, camel
from server.handlers.imports import AUDIT_ID, BEFORE, PAGE_MOST, before_of, epoch_ms, id_of, limit_of
from server.handlers.ports import (
    EPOCH_MS,
    TEXT,
    TRUTH,
    WHOLE,
    Content,
    Ports,
    Query,
    Route,
    list_of,
    object_of,
    of_json,
    or_null,
    ref,
)
from server.handlers.stream import joined, record, stream
from server.protocol.event import refused
from server.protocol.imports import CredentialIn, SecretIn
from server.protocol.values import to_iso

M = TypeVar("M", bound=BaseModel)
SEARCH_MOST: Final = 200
CSV_COLUMNS: Final = ("email", "name", "username", "id", "joined", "status", "phone", "extra")


# --- lists ---


async def list_audiences(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of lists, newest first."""
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    found = await ports.importer.verbs.audiences(who, before=before_of(request), limit=limit)
    said = [{"id": a.id, "owner": a.owner, "name": a.name, "createdAtMs": epoch_ms(a.created_at)} for a in found]
    return json({"audiences": said, "next": found[-1].id if len(found) == limit else None})


async def list_contacts(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of a list's contacts, by e-mail."""
    limit = whole_number(request, "limit", 100, 1, PAGE_MOST)
    after, search = _text(request, "after", 320), _text(request, "search", SEARCH_MOST)
    rows = await ports.importer.verbs.contacts(id_of(request), who, after=after, search=search or None, limit=limit)
    said = [{**_contact(row), "extra": _extra(row) or None} for row in rows]
    return json({"contacts": said, "next": rows[-1].email if len(rows) == limit else None})


def _text(request: web.Request, name: str, most: int) -> str:
    text = request.query.get(name, "")
    if len(text) > most or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise Refused(Code.BAD_MESSAGE, f"{name} has at most {most} characters", field=name, limit=most)
    return text


def _contact(row: Contact) -> dict[str, object]:
    fields = camel(row)
    assert isinstance(fields, dict)
    return fields


def _extra(row: Contact) -> dict[str, object]:
    value: object = orjson.loads(row.extra) if row.extra else {}
    return value if isinstance(value, dict) else {}


async def export_audience(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A whole list as a stream."""
    name = request.query.get("format", "csv")
    if name not in EXPORTS:
        raise Refused(Code.BAD_MESSAGE, f"format is {' or '.join(EXPORTS)}, not {name[:40]!r}", field="format")
    audience = id_of(request)
    content_type, write = EXPORTS[name]
    pieces = write(ports.importer.verbs.export(audience, who))
    return await stream(request, pieces, content_type, f"list-{audience}.{name}")


def _csv(rows: AsyncIterator[Contact]) -> AsyncIterator[bytes]:
    return joined(rows, lambda row: record(_cells(row)), head=record(CSV_COLUMNS))


def _ndjson(rows: AsyncIterator[Contact]) -> AsyncIterator[bytes]:
    return joined(rows, lambda row: orjson.dumps(_importable(row)) + b"\n")


EXPORTS: Final = {"csv": ("text/csv", _csv), "ndjson": ("application/x-ndjson", _ndjson)}


def _importable(row: Contact) -> dict[str, object]:
    """As a file that can be imported again has it."""
    joined_at = None if row.joined_ms is None else to_iso(row.joined_ms)
    ours = {"email": row.email, "name": row.name, "username": row.username, "id": row.external_id, "joined": joined_at}
    return {**_extra(row), **ours, "status": row.status, "phone": row.phone}


def _cells(row: Contact) -> list[str]:
    values = {**_importable(row), "extra": row.extra if _extra(row) else None}
    return ["" if values[name] is None else str(values[name]) for name in CSV_COLUMNS]


async def delete_audience(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Remove a list."""
    audience = id_of(request)
    return json({"id": audience, "auditId": await ports.importer.verbs.delete_list(audience, who)})


# --- credentials ---


async def add_credential(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Keep a key."""
    body = await _body(request, CredentialIn)
    return _kept(await ports.importer.vault.add(who, body.account, body.provider, body.value))


async def list_credentials(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """All but their values."""
    after = whole_number(request, "after", 0, 1, (1 << 63) - 1)
    found = await ports.importer.vault.listed(who, after)
    following = found[-1].id if len(found) == LISTED_MOST else None
    return json({"credentials": camel(found), "next": following})


async def check_credential(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Ask the provider."""
    number = id_of(request)
    asked = await ports.importer.check(who, number)
    return json({**_checked(asked.check), "auditId": asked.audit_id})


def _checked(answer: Check) -> dict[str, object]:
    return {"ok": answer.ok, "emails": answer.emails, "message": answer.message}


async def rotate_credential(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Another key."""
    number = CredentialId(id_of(request))
    body = await _body(request, SecretIn)
    return _kept(await ports.importer.vault.rotate(who, number, body.value))


async def remove_credential(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Forget a key."""
    number = CredentialId(id_of(request))
    return json({"id": number, "auditId": await ports.importer.vault.remove(who, number)})


def _kept(kept: Kept) -> web.Response:
    return json({"credential": camel(kept.credential), "auditId": kept.audit_id})


async def _body(request: web.Request, model: type[M]) -> M:
    """The body; what is wrong with it is said without repeating it, as there is a secret in it."""
    value = await json_object(request, SMALL_BODY)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        told = refused(error)
        if told.field == "value":
            raise Refused(Code.BAD_MESSAGE, "value is the provider's API key, a text", field="value") from None
        raise told from None


# --- as told to the OpenAPI document ---

CONTACT: Final = object_of(
    {
        "email": TEXT,
        **dict.fromkeys(("externalId", "name", "username", "phone", "status"), or_null(TEXT)),
        "joinedMs": or_null(EPOCH_MS),
        "extra": or_null({"type": "object"}),
    }
)
CREDENTIAL: Final = object_of(
    {
        "id": WHOLE,
        **dict.fromkeys(("owner", "account", "provider", "keyId"), TEXT),
        "createdMs": EPOCH_MS,
        "rotatedMs": or_null(EPOCH_MS),
        "checkedMs": or_null(EPOCH_MS),
        "checkResult": or_null(TEXT),
    }
)
_AUDIENCE: Final = object_of({"id": WHOLE, "owner": TEXT, "name": TEXT, "createdAtMs": EPOCH_MS})
_GONE: Final = of_json(object_of({"id": WHOLE, "auditId": AUDIT_ID}), "Gone")
_KEPT: Final = of_json(object_of({"credential": ref("Credential"), "auditId": AUDIT_ID}))
_CHECKED: Final = of_json(
    object_of({"ok": TRUTH, "emails": or_null(TRUTH), "message": TEXT, "auditId": AUDIT_ID}),
    "What the provider says; emails is null when there was nobody to tell by",
)
ROUTES: Final = (
    Route(
        "GET",
        "/audiences",
        list_audiences,
        "List the lists, newest first",
        of_json(object_of({"audiences": list_of(_AUDIENCE), "next": or_null(WHOLE)})),
        (BEFORE, limit_of(50)),
        refusals=(422, 503),
    ),
    Route(
        "GET",
        "/audiences/{id}/contacts",
        list_contacts,
        "A list's contacts, by e-mail",
        of_json(object_of({"contacts": list_of(CONTACT), "next": or_null(TEXT)})),
        (
            Query("after", "The `next` of the page before."),
            Query("search", "A part of e-mail, name or username."),
            limit_of(100),
        ),
        refusals=(404, 422, 503),
    ),
    Route(
        "GET",
        "/audiences/{id}/export",
        export_audience,
        "Export a list as a stream; it can be imported again",
        Content({kind: {"type": "string"} for kind, _ in EXPORTS.values()}, "All contacts"),
        (Query("format", "How they are written.", {"enum": list(EXPORTS), "default": "csv"}),),
        refusals=(404, 422, 503),
    ),
    Route("DELETE", "/audiences/{id}", delete_audience, "Remove a list and stop its jobs", _GONE, refusals=(404, 503)),
    Route(
        "GET",
        "/credentials",
        list_credentials,
        "List credentials, without their values",
        of_json(object_of({"credentials": list_of(ref("Credential")), "next": or_null(WHOLE)})),
        (Query("after", "The `next` of the page before.", WHOLE),),
        refusals=(422, 503),
    ),
    Route(
        "POST",
        "/credentials",
        add_credential,
        "Keep a provider's API key for an account",
        _KEPT,
        body=of_json(ref("CredentialIn")),
        refusals=(400, 409, 413, 422, 503),
    ),
    Route(
        "POST",
        "/credentials/{id}/check",
        check_credential,
        "Ask the provider whether the key works and shows e-mails",
        _CHECKED,
        refusals=(404, 503),
    ),
    Route(
        "POST",
        "/credentials/{id}/rotate",
        rotate_credential,
        "Replace the key",
        _KEPT,
        body=of_json(ref("SecretIn")),
        refusals=(400, 404, 413, 422, 503),
    ),
    Route(
        "DELETE",
        "/credentials/{id}",
        remove_credential,
        "Forget the key; jobs that need it will end and say so",
        _GONE,
        refusals=(404, 503),
    ),
)
