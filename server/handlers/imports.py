"""Import jobs over HTTP: queue one (from a provider's account, or a file that is the body), look, cancel, requeue, hurry.

A user sees and changes its own jobs, an admin everybody's; another's is not found, like one that there is not. What changes
something answers with the number of its entry in the audit trail (`auditId`); repeating a key changes nothing and has none.
Names that end in `Ms` are milliseconds, since 1970 where they are a time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from aiohttp import web
from pydantic import ValidationError

from server.batching.imports import figures as f
from server.batching.imports.files import Spooled
from server.batching.imports.plan import STATUSES, Status
from server.batching.imports.relay import eta_ms
from server.batching.imports.store import Changed, Created, Day, JobView, Request
from server.core.identity import Identity
from server.edge.web import chunks, json, json_object, media_type, whole_number
from server.errors import Code, Refused
from server.handlers.admin import SMALL_BODY, camel
from server.handlers.ports import (
    EPOCH_MS,
    NUMBER,
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
from server.protocol.event import refused
from server.protocol.imports import FileIn, ImportIn, PriorityIn, file_of, import_of
from server.protocol.intake import Format

PAGE_MOST: Final = 1_000
FILES: Final = {"text/csv": Format.CSV, "application/x-ndjson": Format.NDJSON}
KEY_HEADER: Final = "Idempotency-Key"
_NO_DAY: Final = Day(dt.date.min, 0, 0, 0, 0, 0.0)


async def create_import(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Queue a job, from JSON or from a file."""
    fmt = FILES.get(media_type(request) or "")
    if fmt is None:
        return await _create(ports, who, request_of(import_of(_keyed(request, await json_object(request, SMALL_BODY)))))
    return await _create_from_file(request, ports, who, file_of(_keyed(request, _of_query(request))), fmt)


async def _create_from_file(
    request: web.Request, ports: Ports, who: Identity, wanted: FileIn, fmt: Format
) -> web.StreamResponse:
    """The file first; without a job that reads it, it goes again."""
    with ports.streams:
        file = await ports.importer.take_in(chunks(request), fmt)
    kept = False
    try:
        created = await ports.importer.verbs.create(request_of(wanted, file), who)
        kept = created.new
    finally:
        if not kept:
            await ports.importer.drop(file)
    return _created(created)


async def _create(ports: Ports, who: Identity, asked: Request) -> web.StreamResponse:
    return _created(await ports.importer.verbs.create(asked, who))


def _created(created: Created) -> web.StreamResponse:
    return json({"job": job_json(created.job), "new": created.new, "auditId": created.audit_id})


def request_of(wanted: ImportIn | FileIn, file: Spooled | None = None) -> Request:
    """What the store is asked for."""
    common = Request(
        audience_id=wanted.list_id,
        list_name=wanted.list_name,
        priority=wanted.priority,
        client_key=wanted.key,
        max_retries=wanted.max_retries,
    )
    if isinstance(wanted, ImportIn):
        return replace(common, provider=wanted.provider, account=wanted.account)
    name, folder = (None, None) if file is None else (file.name, file.folder)
    return replace(common, source="file", file=name, file_name=wanted.file_name, folder=folder)


def _keyed(request: web.Request, body: dict[str, object]) -> dict[str, object]:
    """The header counts as the field `key`, which it must not contradict."""
    header = request.headers.get(KEY_HEADER)
    if header is None:
        return body
    if body.get("key", header) != header:
        raise Refused(Code.BAD_MESSAGE, f"key and {KEY_HEADER} differ; send one of them", field="key")
    return {**body, "key": header}


def _of_query(request: web.Request) -> dict[str, object]:
    """The query as the JSON that it stands for."""
    numbers = ("listId", "priority", "maxRetries")
    body: dict[str, object] = {name: text for name, text in request.query.items() if text != ""}
    for name in numbers:
        with suppress(ValueError):  # What is no number stays text, and is refused as that.
            body |= {name: int(str(body[name]))} if name in body else {}
    return body


async def list_imports(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A page of jobs, newest first."""
    limit = whole_number(request, "limit", 50, 1, PAGE_MOST)
    jobs = await ports.importer.verbs.list(who, status=_status(request), before=before_of(request), limit=limit)
    return json({"jobs": [job_json(job) for job in jobs], "next": jobs[-1].id if len(jobs) == limit else None})


def _status(request: web.Request) -> Status | None:
    text = request.query.get("status") or None
    found = next((status for status in STATUSES if status == text), None)
    if text is not None and found is None:
        message = f"{text[:40]!r} is no status; there are {', '.join(STATUSES)}"
        raise Refused(Code.BAD_MESSAGE, message, field="status")
    return found


def before_of(request: web.Request) -> int | None:
    """The `next` of the page before."""
    return whole_number(request, "before", 0, 1, (1 << 63) - 1) or None


async def read_import(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """One job."""
    return json(job_json(await ports.importer.verbs.show(id_of(request), who)))


async def read_rejected(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Rows of the source that are no members."""
    limit = whole_number(request, "limit", 100, 1, PAGE_MOST)
    after = whole_number(request, "after", -1, 0, (1 << 63) - 1)
    rows = await ports.importer.verbs.rejected(id_of(request), who, after, limit)
    said = [{"row": row["row"], "field": row["field"], "reason": row["reason"]} for row in rows]
    return json({"rows": said, "next": said[-1]["row"] if len(said) == limit else None})


async def cancel_import(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Stop a job."""
    return _changed(await ports.importer.verbs.cancel(id_of(request), who))


async def requeue_import(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Try a job once more."""
    return _changed(await ports.importer.verbs.requeue(id_of(request), who))


async def patch_import(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Another priority."""
    try:
        body = PriorityIn.model_validate(await json_object(request, SMALL_BODY))
    except ValidationError as error:
        raise refused(error) from None
    return _changed(await ports.importer.verbs.set_priority(id_of(request), body.priority, who))


def _changed(changed: Changed) -> web.StreamResponse:
    return json({"job": job_json(changed.job), "auditId": changed.audit_id})


async def read_queue(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """The state of all imports."""
    importer, now_ms = ports.importer, ports.clock.now_ms()
    overview = await importer.verbs.overview(who)
    days = [_day(day) for day in overview.days]
    today = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).date()
    found = next((day for day in overview.days if day.date == today), _NO_DAY)
    workers = [_fields(worker, "heartbeatAgeS") for worker in overview.workers]
    for said, worker in zip(workers, overview.workers, strict=True):
        said["heartbeatAgeMs"] = round(worker.heartbeat_age_s * 1000)
    pace = {"membersPerS": round(importer.pace.members_per_s, 1), "jobsPerMin": round(importer.pace.jobs_per_min, 2)}
    return json(
        {
            "queue": {status: overview.by_status.get(status, 0) for status in STATUSES},
            "workers": workers,
            "days": days,
            "today": {**_day(found), "date": str(today)},
            "week": f.week(overview.days),
            "throughput": pace,
            "credentials": importer.usage,
            "workersSuggested": f.suggested(overview),
            "lanesHere": importer.lanes,
            "serverTime": now_ms,
        }
    )


def _fields(value: object, *without: str) -> dict[str, object]:
    fields = camel(value)
    assert isinstance(fields, dict)
    return {name: field for name, field in fields.items() if name not in without}


def _day(day: Day) -> dict[str, object]:
    return {**_fields(day), "date": str(day.date)}


def id_of(request: web.Request, name: str = "id") -> int:
    """The id in the path; what can be none is not found, like any other."""
    text = request.match_info[name]
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Refused(Code.NOT_FOUND, f"there is nothing with the id {text[:40]!r} here", field=name)
    return int(text)


def job_json(job: JobView) -> dict[str, object]:
    """A job as JSON."""
    progress = job.progress
    return {
        "id": job.id,
        "owner": job.owner,
        "key": job.client_key,
        "listId": job.audience_id,
        "listName": job.list_name,
        "source": job.source,
        "provider": job.provider,
        "account": job.account,
        "credentialId": job.credential_id,
        "file": job.file,
        "fileName": job.file_name,
        "status": job.status,
        "priority": job.priority,
        "tier": job.tier,
        "retryCount": job.retry_count,
        "maxRetries": job.max_retries,
        "pages": job.pages,
        "total": job.total,
        "seen": job.seen,
        "imported": job.imported,
        "duplicates": job.duplicates,
        "withoutEmail": job.without_email,
        "rejected": job.rejected,
        "error": job.error,
        "percent": progress.percent,
        "rate": None if progress.members_per_s is None else round(progress.members_per_s, 1),
        "etaMs": eta_ms(job),
        **{name: epoch_ms(moment) for name, moment in _moments(job).items()},
    }


def _moments(job: JobView) -> Mapping[str, dt.datetime | None]:
    return {
        "createdAtMs": job.created_at,
        "nextAttemptAtMs": job.next_attempt_at,
        "startedAtMs": job.started_at,
        "progressAtMs": job.progress_at,
        "finishedAtMs": job.finished_at,
    }


def epoch_ms(moment: dt.datetime | None) -> int | None:
    """A time of the database as epoch milliseconds."""
    return None if moment is None else round(moment.timestamp() * 1000)


# --- as told to the OpenAPI document ---

_COUNTS: Final = ("pages", "seen", "imported", "duplicates", "withoutEmail", "rejected")
_TIMES: Final = ("nextAttemptAtMs", "startedAtMs", "progressAtMs", "finishedAtMs")
JOB: Final = object_of(
    {
        "id": WHOLE,
        "owner": TEXT,
        "key": or_null(TEXT),
        "listId": or_null(WHOLE),
        "listName": or_null(TEXT),
        "source": {"enum": ["provider", "file"]},
        "provider": or_null(TEXT),
        "account": or_null(TEXT),
        "credentialId": or_null(WHOLE),
        "file": or_null(TEXT),
        "fileName": or_null(TEXT),
        "status": {"enum": list(STATUSES)},
        "priority": WHOLE,
        "tier": WHOLE,
        "retryCount": WHOLE,
        "maxRetries": WHOLE,
        **dict.fromkeys(_COUNTS, WHOLE),
        "total": or_null(WHOLE),
        "error": or_null(TEXT),
        "percent": or_null(NUMBER),
        "rate": or_null(NUMBER),
        "etaMs": or_null(WHOLE),
        "createdAtMs": EPOCH_MS,
        **dict.fromkeys(_TIMES, or_null(EPOCH_MS)),
    }
)
AUDIT_ID: Final = {"type": "integer", "description": "number of the entry in the audit trail"}
WORKER: Final = object_of(
    {
        "id": WHOLE,
        "name": TEXT,
        "status": {"enum": ["active", "stopped", "dead"]},
        "currentJob": or_null(WHOLE),
        "jobsProcessed": WHOLE,
        "totalMembersProcessed": WHOLE,
        "host": TEXT,
        "pid": WHOLE,
        "version": TEXT,
        "lanes": WHOLE,
        "heartbeatAgeMs": WHOLE,
    }
)
_SUMS: Final = {
    **dict.fromkeys(("totalJobs", "completedJobs", "failedJobs", "totalMembersProcessed"), WHOLE),
    "avgProcessingSeconds": NUMBER,
}
DAY: Final = object_of({"date": TEXT, **_SUMS})
USAGE: Final = object_of(
    {
        "node": TEXT,
        "credentialId": WHOLE,
        **dict.fromkeys(("calls", "pages", "limited", "failed"), WHOLE),
        "secondsPerPage": or_null(NUMBER),
        "tokens": NUMBER,
        "shutMs": WHOLE,
    }
)
QUEUE: Final = object_of(
    {
        "queue": object_of(dict.fromkeys(STATUSES, WHOLE)),
        "workers": list_of(WORKER),
        "days": list_of(ref("ImportDay")),
        "today": ref("ImportDay"),
        "week": object_of(_SUMS),
        "throughput": object_of({"membersPerS": NUMBER, "jobsPerMin": NUMBER}),
        "credentials": list_of(USAGE),
        "workersSuggested": WHOLE,
        "lanesHere": WHOLE,
        "serverTime": EPOCH_MS,
    }
)
_CHANGED: Final = of_json(object_of({"job": ref("Job"), "auditId": AUDIT_ID}), "The job now")
_FILE: Final = {
    "type": "string",
    "description": "a header and members: email, name, username, id, joined, status, phone",
}
BEFORE: Final = Query("before", "The `next` of the page before.", WHOLE)


def limit_of(default: int) -> Query:
    """The parameter `limit`."""
    schema = {"type": "integer", "minimum": 1, "maximum": PAGE_MOST, "default": default}
    return Query("limit", "Rows a page.", schema)


ROUTES: Final = (
    Route(
        "POST",
        "/imports",
        create_import,
        "Queue an import from a provider's account, or from a file of members that is the body",
        of_json(
            object_of({"job": ref("Job"), "new": TRUTH, "auditId": or_null(AUDIT_ID)}), "The job; not new: by its key"
        ),
        (
            Query("listName", "With a file: makes a new list of this name."),
            Query("listId", "With a file: a list that there is.", WHOLE),
            Query("priority", "With a file: 0 to 9, higher is first.", WHOLE),
            Query("key", "With a file: asking again with the same key makes nothing new."),
            Query("maxRetries", "With a file: attempts after the first.", WHOLE),
            Query("fileName", "With a file: its own name, to be shown with the job."),
        ),
        body=Content({"application/json": ref("ImportIn"), **dict.fromkeys(FILES, _FILE)}),
        refusals=(400, 404, 409, 413, 422, 429, 503),
        headers={KEY_HEADER: "the same as `key`"},
    ),
    Route(
        "GET",
        "/imports",
        list_imports,
        "List import jobs, newest first",
        of_json(object_of({"jobs": list_of(ref("Job")), "next": or_null(WHOLE)})),
        (Query("status", "Only those.", {"enum": list(STATUSES)}), BEFORE, limit_of(50)),
        refusals=(422, 503),
    ),
    Route("GET", "/imports/status", read_queue, "The state of all imports", of_json(QUEUE), refusals=(503,)),
    Route("GET", "/imports/{id}", read_import, "Read a job and its progress", of_json(ref("Job")), refusals=(404, 503)),
    Route(
        "GET",
        "/imports/{id}/rejected",
        read_rejected,
        "Rows of a job's source that are no members, from 0",
        of_json(
            object_of(
                {
                    "rows": list_of(object_of({"row": WHOLE, "field": or_null(TEXT), "reason": TEXT})),
                    "next": or_null(WHOLE),
                }
            )
        ),
        (Query("after", "The `next` of the page before.", WHOLE), limit_of(100)),
        refusals=(404, 422, 503),
    ),
    Route(
        "PATCH",
        "/imports/{id}",
        patch_import,
        "Change a job's priority while it waits",
        _CHANGED,
        body=of_json(ref("PriorityIn")),
        refusals=(400, 404, 409, 422, 503),
    ),
    Route(
        "POST",
        "/imports/{id}/cancel",
        cancel_import,
        "Stop a job, also while it is worked on",
        _CHANGED,
        refusals=(404, 409, 503),
    ),
    Route(
        "POST",
        "/imports/{id}/requeue",
        requeue_import,
        "Try a failed or cancelled job once more, from where it stopped",
        _CHANGED,
        refusals=(404, 409, 503),
    ),
)
