"""The pages' table by itself: sorting, filtering, paging, changing in place, the address, CSV. Rows come from the test."""

from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.pages.conftest import Visitor

pytestmark = pytest.mark.browser

LONG = 30_000
MAKE = """async (options) => {
    const { Table } = await import("/site/table.js");
    const place = document.createElement("div");
    place.id = "place";
    document.querySelector("main").replaceChildren(place);
    const all = Array.from({ length: options.count ?? 0 }, (_, n) => ({ id: n + 1, name: `row ${n + 1}`, size: (n * 7) % 10 }));
    window.all = all;
    window.asked = [];
    const load = async (question) => {
        window.asked.push(question);
        if (window.broken) throw new Error("The server is on holiday.");
        if (question.filter === "row") await new Promise((release) => { window.release = release; });
        const from = question.cursor ?? 0;
        const rows = window.all.filter(({ name }) => !options.searches || name.includes(question.filter)).slice(from, from + 10);
        return { rows: rows.map((row) => ({ ...row })), next: from + 10 < window.all.length ? from + 10 : null };
    };
    const columns = [
        { key: "id", name: "Id", type: "number" },
        { key: "name", name: "Name", type: "text" },
        { key: "size", name: "Size", type: "number" },
    ];
    const button = (words) => Object.assign(document.createElement("button"), { textContent: words, type: "button" });
    if (options.link) columns[1].format = (name) => button(`${name}!`);
    const choices = options.choices ? [{ key: "kind", name: "Kind", options: [["", "any"], ["odd", "odd"]] }] : [];
    window.table = new Table(place, { caption: "things", name: "t", columns, choices, id: ({ id }) => id, empty: "Nothing here.",
        ...(options.load ? { load, sorts: false, searches: options.searches ?? false } : {}) });
    if (!options.load) window.table.setRows(all);
}"""


def table(visit: Visitor, address: str = "/jobs", **options: object) -> Page:
    page = visit().open(address)
    expect(page.locator("#connection")).to_contain_text("Live", timeout=LONG)
    page.evaluate(MAKE, options)
    return page


def column(page: Page, index: int) -> list[str]:
    return page.locator(f"#place tbody td:nth-child({index})").all_inner_texts()


def test_rows_are_sorted_by_a_click_and_turned_round_by_another(visit: Visitor) -> None:
    page = table(visit, count=10)
    page.get_by_role("button", name="Size").click()
    assert column(page, 3) == sorted(column(page, 3), key=int, reverse=True)
    page.get_by_role("button", name="Size").click()
    assert column(page, 3) == sorted(column(page, 3), key=int)
    expect(page.get_by_role("columnheader", name="Size")).to_have_attribute("aria-sort", "ascending")
    expect(page.get_by_role("button", name="Size")).to_be_focused()


def test_words_filter_and_the_address_brings_order_words_and_choice_back(visit: Visitor) -> None:
    page = table(visit, count=30, choices=True)
    page.get_by_role("button", name="Name").click()
    page.get_by_role("searchbox").fill("row 2")
    page.get_by_label("Kind of things").select_option("odd")
    holding_a_2 = sum("2" in f"{n} {(n - 1) * 7 % 10}" for n in range(1, 31))
    expect(page.locator("#place tbody tr")).to_have_count(holding_a_2, timeout=LONG)
    query = parse_qs(urlsplit(page.url).query)
    assert query == {"t.sort": ["name"], "t.filter": ["row 2"], "t.kind": ["odd"]}
    again = table(visit, page.url.removeprefix(page.evaluate("location.origin")), count=30, choices=True)
    assert column(again, 2) == column(page, 2)
    expect(again.get_by_label("Kind of things")).to_have_value("odd")
    again.get_by_role("searchbox").fill("nothing like it")
    again.get_by_role("button", name="Clear the filter").click()
    expect(again.locator("#place tbody tr")).to_have_count(30, timeout=LONG)
    assert "filter" not in again.url and "kind" not in again.url


def test_pages_follow_each_other_and_a_quiet_refresh_loses_none(visit: Visitor) -> None:
    page = table(visit, count=25, load=True)
    expect(page.locator("#place tbody tr")).to_have_count(10, timeout=LONG)
    page.get_by_role("button", name="More", exact=True).click()
    expect(page.locator("#place tbody tr")).to_have_count(20, timeout=LONG)
    page.evaluate(
        "() => { all.unshift({ id: 99, name: 'newest', size: 1 }); all[3].name = 'changed'; return table.refresh(); }"
    )
    assert column(page, 1) == ["99", *(str(n) for n in range(1, 21))]
    assert column(page, 2)[:4] == ["newest", "row 1", "row 2", "changed"]


def test_what_is_loaded_is_sorted_here_and_the_table_says_so(visit: Visitor) -> None:
    page = table(visit, count=25, load=True)
    expect(page.locator("#place tbody tr")).to_have_count(10, timeout=LONG)
    page.get_by_role("button", name="Id").click()
    assert column(page, 1)[0] == "10"
    expect(page.locator("#place .table-status")).to_have_text("Of the 10 rows loaded so far.")
    assert page.evaluate("() => asked.length") == 1


def test_a_search_is_the_servers_and_only_the_last_answer_counts(visit: Visitor) -> None:
    page = table(visit, count=25, load=True, searches=True)
    expect(page.locator("#place tbody tr")).to_have_count(10, timeout=LONG)
    page.get_by_role("searchbox").fill("row")
    page.wait_for_function("() => window.release")
    page.get_by_role("searchbox").fill("row 17")
    expect(page.locator("#place tbody tr")).to_have_count(1, timeout=LONG)
    page.evaluate("async () => { release(); await new Promise((next) => setTimeout(next)); }")
    assert page.evaluate("() => asked.at(-1).filter") == "row 17"
    assert column(page, 2) == ["row 17"]
    expect(page.get_by_role("columnheader", name="Size").get_by_role("button")).to_have_count(0)


def test_a_row_that_changes_in_place_keeps_focus_and_its_neighbours_nodes(visit: Visitor) -> None:
    page = table(visit, count=5, link=True)
    page.evaluate("() => { document.querySelectorAll('#place tbody tr').forEach((row, n) => { row.mark = n; }); }")
    third = page.get_by_role("button", name="row 3!")
    third.focus()
    assert page.evaluate("() => [table.patch(3, { size: 77 }), table.patch(1234, { size: 1 })]") == [True, False]
    expect(third).to_be_focused()
    assert "77" in column(page, 3)
    assert sorted(page.evaluate("() => Array.from(document.querySelectorAll('#place tbody tr'), (r) => r.mark)")) == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_a_read_that_fails_says_why_and_is_tried_again(visit: Visitor) -> None:
    page = table(visit, count=25, load=True)
    expect(page.locator("#place tbody tr")).to_have_count(10, timeout=LONG)
    page.evaluate("() => { window.broken = true; }")
    page.get_by_role("button", name="More", exact=True).click()
    expect(page.locator("#place .table-status")).to_contain_text(
        "The server is on holiday. Shown is what was read before.", timeout=LONG
    )
    page.evaluate("() => { window.broken = false; }")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#place tbody tr")).to_have_count(20, timeout=LONG)
    expect(page.locator("#place .table-status")).to_be_empty()


def test_csv_quotes_what_must_be_and_defuses_formulas(visit: Visitor) -> None:
    page = table(visit, count=1)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """() => table.setRows([{ id: -1, name: '=HYPERLINK("x")', size: 2 }, { id: 0, name: "a, b", size: null }])"""
    )
    page.get_by_role("button", name="Copy as CSV").click()
    expect(page.locator("#notices")).to_contain_text("Copied 2 rows of things.", timeout=LONG)
    lines = page.evaluate("() => navigator.clipboard.readText()").splitlines()
    assert lines == ["Id,Name,Size", '0,"a, b",', '-1,"\'=HYPERLINK(""x"")",2']


def test_an_empty_table_says_how_to_fill_it(visit: Visitor) -> None:
    page = table(visit, count=0)
    expect(page.locator("#place .table-status")).to_have_text("Nothing here.")
    expect(page.locator("#place table")).to_be_hidden()
