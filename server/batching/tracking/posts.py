"""Addresses of posts, down to what tells one post from another. Pure.

    post_of("https://youtu.be/dQw4w9WgXcQ?si=abc") == Post("youtube", "dQw4w9WgXcQ", "https://www.youtube.com/watch?v=dQw4w9WgXcQ")

However a post is addressed (short hosts, mobile hosts, shorts and reels, embedded players, tracking parameters, slashes at the
end), it is one. What is no post is refused with what is allowed: profiles, channels, lists, searches; links that only their
service can resolve, which would cost a call for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from server.errors import Code, Refused

Platform: TypeAlias = Literal["tiktok", "instagram", "youtube", "x"]
PLATFORMS: Final[tuple[Platform, ...]] = ("tiktok", "instagram", "youtube", "x")
URL_MOST: Final = 2_000

EXAMPLES: Final[dict[Platform, str]] = {
    "tiktok": "https://www.tiktok.com/@name/video/7301234567890123456",
    "instagram": "https://www.instagram.com/reel/Cabc123DEF_",
    "youtube": "https://www.youtube.com/watch?v=dQw4w9WgXcQ or https://youtu.be/dQw4w9WgXcQ",
    "x": "https://x.com/name/status/1234567890123456789",
}
HOSTS: Final[dict[str, Platform]] = {
    "tiktok.com": "tiktok",
    "instagram.com": "instagram",
    "instagr.am": "instagram",
    "youtube.com": "youtube",
    "youtube-nocookie.com": "youtube",
    "youtu.be": "youtube",
    "x.com": "x",
    "twitter.com": "x",
}
BEFORE_HOST: Final = ("www.", "m.", "mobile.", "music.", "platform.")
SHORTENERS: Final = {"vm.tiktok.com": "TikTok", "vt.tiktok.com": "TikTok", "t.co": "X"}

NUMBER: Final = re.compile(r"[1-9][0-9]{0,24}", re.ASCII)
NAME: Final = re.compile(r"@[A-Za-z0-9._-]{1,64}", re.ASCII)
VIDEO: Final = re.compile(r"[A-Za-z0-9_-]{11}", re.ASCII)
SHORTCODE: Final = re.compile(r"[A-Za-z0-9_-]{5,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Post:
    """A post: its platform, its id there, and the one address that we ask for it by."""

    platform: Platform
    post_id: str
    url: str


def post_of(url: str) -> Post:
    """The post at this address; Refused when it is none."""
    parts = _split(url)
    host = _host(parts)
    platform = HOSTS.get(host)
    if platform is None:
        names = "TikTok, Instagram, YouTube and X"
        raise Refused(
            Code.BAD_MESSAGE, f"{host or 'this'} is no platform that is tracked; posts of {names} are", field="url"
        )
    path = [unquote(part) for part in parts.path.split("/") if part]
    post = FINDERS[platform](host, path, parse_qs(parts.query))
    if post is None:
        raise _no_post(platform, path)
    return post


def _split(url: str) -> SplitResult:
    text = url.strip()
    if not text or len(text) > URL_MOST or not text.isprintable():
        message = f"url is the address of a post, of 1 to {URL_MOST} printable characters"
        raise Refused(Code.BAD_MESSAGE, message, field="url", limit=URL_MOST)
    if "://" not in text:
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        hostname, _ = parts.hostname, parts.port
    except ValueError:
        hostname = None
    if hostname is None or parts.scheme.lower() not in ("http", "https"):
        raise Refused(Code.BAD_MESSAGE, "url is no address of the web; it begins with https://", field="url")
    return parts


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".").lower()
    if host in SHORTENERS or (host.removeprefix("www.") == "tiktok.com" and parts.path.startswith("/t/")):
        service = SHORTENERS.get(host, "TikTok")
        message = (
            f"{host} is a short link that only {service} can resolve; open it and copy the address of the post itself"
        )
        raise Refused(Code.BAD_MESSAGE, message, field="url")
    for prefix in BEFORE_HOST:
        host = host.removeprefix(prefix)
    return host


def _tiktok(host: str, path: list[str], query: dict[str, list[str]]) -> Post | None:
    match path:
        case [name, ("video" | "photo"), number, *_] if name.startswith("@") and NUMBER.fullmatch(number):
            return _tiktok_post(number, name)
        case ["embed", number] | ["embed", "v2" | "v3", number] | ["player", "v1", number] if NUMBER.fullmatch(number):
            return _tiktok_post(number)
        case ["v", page] if NUMBER.fullmatch(page.removesuffix(".html")):
            return _tiktok_post(page.removesuffix(".html"))
    return None


def _tiktok_post(number: str, name: str = "@") -> Post:
    return Post("tiktok", number, f"https://www.tiktok.com/{name if NAME.fullmatch(name) else '@'}/video/{number}")


def _instagram(host: str, path: list[str], query: dict[str, list[str]]) -> Post | None:
    kinds = ("p", "reel", "reels", "tv")
    # A post may be addressed below the name of its author; the code alone tells posts apart.
    match path:
        case [kind, code, *_] if kind in kinds and SHORTCODE.fullmatch(code):
            pass
        case [name, kind, code, *_] if name != "share" and kind in kinds and SHORTCODE.fullmatch(code):
            pass
        case _:
            return None
    return None if code == "audio" else Post("instagram", code, f"https://www.instagram.com/p/{code}/")


def _youtube(host: str, path: list[str], query: dict[str, list[str]]) -> Post | None:
    match path:
        case [video, *_] if host == "youtu.be":
            pass
        case [("shorts" | "embed" | "live" | "v" | "e"), video, *_]:
            pass
        case ["watch"]:
            video = query.get("v", [""])[0]
        case _:
            return None
    if not VIDEO.fullmatch(video) or video in ("videoseries", "live_stream"):
        return None
    return Post("youtube", video, f"https://www.youtube.com/watch?v={video}")


def _x(host: str, path: list[str], query: dict[str, list[str]]) -> Post | None:
    match path:
        case [_, ("status" | "statuses"), number, *_] if NUMBER.fullmatch(number):
            return Post("x", number, f"https://x.com/i/status/{number}")
        case ["i", "web", "status", number, *_] if NUMBER.fullmatch(number):
            return Post("x", number, f"https://x.com/i/status/{number}")
        case ["embed", "Tweet.html"] if NUMBER.fullmatch(query.get("id", [""])[0]):
            return Post("x", query["id"][0], f"https://x.com/i/status/{query['id'][0]}")
    return None


FINDERS: Final[dict[Platform, Callable[[str, list[str], dict[str, list[str]]], Post | None]]] = {
    "tiktok": _tiktok,
    "instagram": _instagram,
    "youtube": _youtube,
    "x": _x,
}


def _no_post(platform: Platform, path: list[str]) -> Refused:
    what = _named(platform, path)
    return Refused(
        Code.BAD_MESSAGE, f"that is {what}, not a post; a post's address is like {EXAMPLES[platform]}", field="url"
    )


def _named(platform: Platform, path: list[str]) -> str:
    """What an address that is no post most likely is."""
    first = path[0] if path else ""
    if not first:
        return f"the front page of {platform}"
    if platform == "youtube" and (first in ("channel", "c", "user") or first.startswith("@")):
        return "a channel"
    if first in ("playlist", "results", "search", "explore", "hashtag", "tag", "discover", "stories", "feed", "music"):
        return f"a page of {platform} ({first})"
    if len(path) == 1 and first not in ("watch", "embed", "shorts", "p", "reel", "reels", "video"):
        return "a profile"
    return f"an address of {platform} that names no post"
