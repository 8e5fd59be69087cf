"""Addresses of posts: every way to write one comes to the same post; what is none is refused in words that help."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.tracking.posts import post_of
from server.errors import Refused

pytestmark = pytest.mark.pure

TIKTOK, INSTAGRAM, YOUTUBE, X = (
    ("tiktok", "7301234567890123456"),
    ("instagram", "Cabc123DEF_"),
    ("youtube", "dQw4w9WgXcQ"),
    ("x", "1234567890123456789"),
)

SAME = {
    TIKTOK: [
        "https://www.tiktok.com/@some.one_1/video/7301234567890123456",
        "http://tiktok.com/@some.one_1/video/7301234567890123456/",
        "www.tiktok.com/@some.one_1/video/7301234567890123456?is_from_webapp=1&sender_device=pc&lang=de#top",
        "https://m.tiktok.com/@x/video/7301234567890123456",
        "https://m.tiktok.com/v/7301234567890123456.html",
        "https://www.tiktok.com/embed/v2/7301234567890123456",
        "https://www.tiktok.com/embed/7301234567890123456",
        "https://www.tiktok.com/player/v1/7301234567890123456?music_info=1",
        "https://www.tiktok.com/@some.one/photo/7301234567890123456",
        "  HTTPS://WWW.TIKTOK.COM/@other/video/7301234567890123456  ",
        "https://www.tiktok.com/%40some.one/video/7301234567890123456",
    ],
    INSTAGRAM: [
        "https://www.instagram.com/p/Cabc123DEF_/",
        "https://instagram.com/reel/Cabc123DEF_?igsh=MzRlODBiNWFlZA==",
        "https://www.instagram.com/reels/Cabc123DEF_",
        "https://www.instagram.com/tv/Cabc123DEF_/",
        "https://www.instagram.com/some.one/reel/Cabc123DEF_/",
        "https://www.instagram.com/some.one/p/Cabc123DEF_/?utm_source=ig_web",
        "https://www.instagram.com/p/Cabc123DEF_/embed/captioned/",
        "instagr.am/p/Cabc123DEF_",
    ],
    YOUTUBE: [
        "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
        "https://youtube.com/watch?v=dQw4w9WgXcQ&t=42s&list=PL123&index=2&pp=abc",
        "https://m.youtube.com/watch?app=desktop&v=dQw4w9WgXcQ",
        "https://music.youtube.com/watch?v=dQw4w9WgXcQ",
        "https://youtu.be/dQw4w9WgXcQ",
        "https://youtu.be/dQw4w9WgXcQ/?si=AbCd",
        "youtu.be/dQw4w9WgXcQ?t=3",
        "https://www.youtube.com/shorts/dQw4w9WgXcQ?feature=share",
        "https://www.youtube.com/embed/dQw4w9WgXcQ?autoplay=1",
        "https://www.youtube-nocookie.com/embed/dQw4w9WgXcQ",
        "https://www.youtube.com/live/dQw4w9WgXcQ",
        "https://www.youtube.com/v/dQw4w9WgXcQ",
        "https://www.youtube.com:443/watch/?v=dQw4w9WgXcQ",
    ],
    X: [
        "https://x.com/some_one/status/1234567890123456789",
        "https://twitter.com/some_one/status/1234567890123456789?s=20&t=abc",
        "https://mobile.twitter.com/other/status/1234567890123456789/",
        "https://x.com/some_one/status/1234567890123456789/photo/1",
        "https://twitter.com/some_one/statuses/1234567890123456789",
        "https://twitter.com/i/web/status/1234567890123456789",
        "https://x.com/i/status/1234567890123456789",
        "https://platform.twitter.com/embed/Tweet.html?id=1234567890123456789",
    ],
}


@pytest.mark.parametrize(("post", "url"), [(post, url) for post, urls in SAME.items() for url in urls])
def test_every_address_of_a_post_is_that_post(post: tuple[str, str], url: str) -> None:
    found = post_of(url)
    assert (found.platform, found.post_id) == post


@pytest.mark.parametrize("url", [urls[0] for urls in SAME.values()])
def test_the_address_that_is_kept_is_an_address_of_the_same_post(url: str) -> None:
    post = post_of(url)
    assert post_of(post.url) == post


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://www.tiktok.com/@some.one", "a profile"),
        ("https://www.instagram.com/some.one/", "a profile"),
        ("https://x.com/some_one", "a profile"),
        ("https://www.youtube.com/@someone", "a channel"),
        ("https://www.youtube.com/@someone/videos", "a channel"),
        ("https://www.youtube.com/channel/UC1234567890", "a channel"),
        ("https://www.youtube.com/c/Someone", "a channel"),
        ("https://www.youtube.com/user/someone", "a channel"),
        ("https://www.youtube.com/playlist?list=PL123", "playlist"),
        ("https://www.youtube.com/embed/videoseries?list=PL123", "names no post"),
        ("https://www.youtube.com/watch", "names no post"),
        ("https://www.youtube.com/watch?v=short", "names no post"),
        ("https://www.youtube.com/", "front page"),
        ("https://www.instagram.com/explore/tags/cats/", "explore"),
        ("https://www.instagram.com/reels/audio/123456789/", "names no post"),
        ("https://www.instagram.com/stories/some.one/3123456789/", "stories"),
        ("https://www.instagram.com/share/reel/BAabc123/", "names no post"),
        ("https://www.tiktok.com/tag/cats", "tag"),
        ("https://x.com/some_one/status/abc", "names no post"),
        ("https://x.com/search?q=cats", "search"),
        ("https://vm.tiktok.com/ZMabcdef/", "short link"),
        ("https://vt.tiktok.com/ZSabcdef/", "short link"),
        ("https://www.tiktok.com/t/ZTabcdef/", "short link"),
        ("https://t.co/abcdef", "short link"),
        ("https://vimeo.com/12345", "no platform"),
        ("https://youtube.com.evil.example/watch?v=dQw4w9WgXcQ", "no platform"),
        ("https://youtube.com@evil.example/watch?v=dQw4w9WgXcQ", "no platform"),
        ("ftp://youtu.be/dQw4w9WgXcQ", "begins with https"),
        ("javascript:alert(1)", "https"),
        ("https://[::1", "https"),
        ("https://youtu.be:99999999/dQw4w9WgXcQ", "https"),
        ("", "address of a post"),
        ("https://youtu.be/dQw4w9WgXcQ\x00", "printable"),
        ("https://youtu.be/" + "a" * 2_000, "2000"),
        ("https://www.tiktok.com/@some.one/video/٣٤٥", "names no post"),
    ],
)
def test_what_is_no_post_is_refused_in_words_that_say_what_it_is(url: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        post_of(url)
    assert words in refused.value.message
    assert (refused.value.code, refused.value.field) == ("bad_message", "url")


@given(
    st.one_of(
        st.text(max_size=60),
        st.builds(
            "https://{}/{}".format,
            st.sampled_from(["youtu.be", "x.com", "tiktok.com", "instagram.com"]),
            st.text(max_size=40),
        ),
    )
)
def test_any_text_is_a_post_or_refused_and_a_post_is_stable(text: str) -> None:
    try:
        post = post_of(text)
    except Refused:
        return
    assert post_of(post.url) == post
    assert post.url.isascii() and post.url.isprintable()
