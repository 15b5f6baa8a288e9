"""The page: one file, the same bytes for the same sheet, nothing fetched, and no verdict louder than another."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from stockpicker_dagster.evaluation.judgement import Judgement
from stockpicker_dagster.tear_sheet.page import as_html
from stockpicker_dagster_tests.tear_sheet.invented import CALENDAR, SESSIONS, invented_days, invented_sheet

LARGEST = 2_500_000
"""Bytes that a page of ten years may have."""


class _Reader(HTMLParser):
    """What a page says, what it would fetch, and what is packed in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.fetched: list[str] = []
        self.packed: dict[str, str] = {}
        self._inside: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched += [f"{tag} {value}" for name in ("src", "href", "srcset") if (value := given.get(name))]
        self._inside = given.get("id") if tag == "script" else "style" if tag == "style" else None

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside != "style":
            self.packed[self._inside] = data
        elif self._inside is None:
            self.text.append(data)


def unpacked(page: str, name: str) -> str:
    return gzip.decompress(base64.b64decode(_Reader(page).packed[name])).decode()


@pytest.fixture(scope="module")
def page() -> str:
    return as_html(invented_sheet())


def test_the_same_sheet_gives_the_same_bytes(page: str) -> None:
    assert as_html(invented_sheet()) == page


def test_nothing_is_fetched(page: str) -> None:
    reader = _Reader(page)
    assert reader.fetched == ["link data:,"]
    assert re.search(r"@import|url\(", page) is None
    assert "default-src 'none'" in page


def test_plotly_and_every_number_travel_inside(page: str) -> None:
    from plotly.offline import get_plotlyjs

    assert unpacked(page, "plotly-js") == get_plotlyjs()
    packed: dict[str, Any] = json.loads(unpacked(page, "plots"))
    drawn = {plot["name"]: plot for plot in packed["plots"]}
    assert {f'id="plot-{name}"' in page for name in drawn} == {True}
    (*_, own) = drawn["equity_net"]["data"]
    assert packed["axes"][own["x"]] == [str(session) for session in SESSIONS]
    assert len(own["y"]) == len(SESSIONS)


def test_what_a_form_says_is_text(page: str) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    reader = _Reader(as_html(invented_sheet(strategy=hostile, description=hostile, caveats=(hostile,))))
    assert reader.fetched == ["link data:,"]
    assert " ".join(reader.text).count(hostile) == 4


def test_luck_looks_as_plain_as_strength(page: str) -> None:
    """The markup around the words is the same, letter for letter, whatever the words are."""
    pages = {"cannot be told from luck": page, "strong": as_html(invented_sheet(invented_days(0.0012)))}
    shown = set()
    for words, each in pages.items():
        box = re.search(r'<section class="verdict".*?</section>', each, re.DOTALL)
        assert box is not None
        assert f'<p class="words">{words}</p>' in box[0]
        shown.add(re.sub(r">[^<>]+<", "><", box[0]))
    assert len(shown) == 1


def test_the_words_come_first_then_what_to_keep_in_mind(page: str) -> None:
    text = " ".join(" ".join(_Reader(page).text).split())
    places = [
        text.index(part) for part in ("Verdict cannot be told from luck", "What to keep in mind", "Wealth and drawdown")
    ]
    assert places == sorted(places)
    for caveat in (
        "prices are simulated",
        "members as of each day",
        "about +1.0 % a year",
        "3 delistings have no known return",
        "is 0.41 if each is 0, and 0.22 if each is -30 %",
    ):
        assert caveat in text


def test_without_a_verdict_the_page_says_why() -> None:
    without = as_html(invented_sheet(judgement=Judgement(None, "30 sessions are too few"), delistings=None))
    assert '<p class="words">no verdict</p>' in without
    assert '<p class="reason">30 sessions are too few.</p>' in without


def test_ten_years_fit_into_a_small_file() -> None:
    sessions = CALENDAR.sessions(SESSIONS[0].replace(year=2013), SESSIONS[-1])
    page = as_html(invented_sheet(invented_days(sessions=sessions, books=20)))
    assert len(sessions) > 2520
    assert len(page.encode()) < LARGEST
