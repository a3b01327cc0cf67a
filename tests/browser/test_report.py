"""Open the report in a real browser: it can be used, it can be read by all, and no text of a model, judge or data set
runs in it.

`make test-browser` runs this; it needs Chromium.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from eval.grid.layout import Grid, judgment_file
from salsa.runtime.jsonl import read_jsonl, write_jsonl
from tests.eval.hostile import COMMANDS, HOSTILE, write_hostile_answers
from tests.eval.synthetic import GRID, REPLICATED, with_frontier, write_results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
WIDTHS = (400, 800, 1200)
QUICK = 100  # milliseconds in which a reader sees no delay
FULL = with_frontier(REPLICATED)
LONG = "The soup of two models is a reference like any other, and a word here or there makes the difference. " * 8
CATEGORIES = ("writing", "maths")
HANDLERS = "[...document.querySelectorAll('*')].some((e) => e.getAttributeNames().some((name) => /^on/.test(name)))"
HREFS = "(links) => links.map((link) => link.getAttribute('href'))"
LINES = "(rows) => rows.map((row) => [...row.childNodes].map((part) => part.textContent).join('\\n'))"
OPEN_ALL = "for (const part of document.querySelectorAll('details')) part.open = true"
CHOSEN_IS_IN_SIGHT = """() => {
    const list = document.querySelector(".matches").getBoundingClientRect();
    const row = document.querySelector(".matches [aria-selected=true]").getBoundingClientRect();
    return row.top >= list.top - 1 && row.bottom <= list.bottom + 1;
}"""
TIMES = """() => {
    const search = document.querySelector("input[type=search]");
    const time = (work) => {
        const start = performance.now();
        work();
        document.querySelector(".sample").getBoundingClientRect();  // with its layout
        return performance.now() - start;
    };
    const typed = (text) => time(() => {
        search.value = text;
        search.dispatchEvent(new Event("input", { bubbles: true }));
    });
    const key = () => new KeyboardEvent("keydown", { key: "j", bubbles: true });
    const pressed = () => time(() => document.body.dispatchEvent(key()));
    const first = typed("s");  // prepares the search
    const median = (times) => times.sort((a, b) => a - b)[Math.floor(times.length / 2)];
    return {
        first,
        search: median(["sa", "sal", "sals", "salsa", ""].map(typed)),
        step: median(Array.from({ length: 20 }, pressed)),
    };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "no Chromium: apt-get install chromium"
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *alone])
        yield running
        running.close()


@pytest.fixture
def visit(browser):
    """visit(file, fragment, …) -> the page. It must have no errors and load nothing but the file."""
    problems: list[str] = []
    pages: list[Page] = []

    def run(file: Path, fragment: str = "", width: int = 1200, scheme: str = "light") -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: problems.append(request.url) if file.name not in request.url else None)
        page.goto(file.as_uri() + fragment)
        return page

    yield run
    for page in pages:
        page.close()
    assert not problems


def build(results: Path, grid: Grid) -> Path:
    """Tables, figures and report of a results folder."""
    settings = grid.model_dump_json(exclude_none=True)
    for stage, out, *more in (
        ("tables", "tables"),
        ("figures", "figures"),
        ("report", "report.html", "--ledger", results / "ledger"),
    ):
        arguments = ["--results", results, "--settings", settings, "--out", results / out, *more]
        subprocess.run([sys.executable, "-m", "eval", stage, *map(str, arguments)], check=True)
    return results / "report.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    results = write_results(tmp_path_factory.mktemp("hostile") / "results")
    write_hostile_answers(results)
    return build(results, GRID)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Three replicates, a frontier, long answers, a judge's texts, and more than a thousand judgments."""
    results = write_results(tmp_path_factory.mktemp("full") / "results", questions=90, grid=FULL)
    for path in (results / "generations").rglob("*.jsonl"):
        rows = read_jsonl(path)
        for n, row in enumerate(rows):
            answer = f"{LONG}{path.parent.name} says {n}. {LONG}"
            row |= {"category": CATEGORIES[n % 2], "turns": [{"user": f"What of {n}?", "assistant": answer}]}
        write_jsonl(path, rows)
    calls = []
    for path in (results / "judgments").rglob("*.jsonl"):
        rows = read_jsonl(path)
        for n, row in enumerate(rows):
            row["category"] = CATEGORIES[n % 2]
            for game in row["games"]:
                game["call"] = f"{path}-{n}-{game['order']}"
                reply = f"Order {game['order']} of question {n}: [[{game['outcome']}]]"
                calls.append({"key": game["call"], "judge": "j", "outcome": "answered", "text": reply, "cost": None})
        write_jsonl(path, rows)
    (results / "ledger").mkdir()
    write_jsonl(results / "ledger/calls.jsonl", calls)
    return build(results, FULL)


def samples_of(page: Page) -> list[str]:
    """The rows of the list."""
    return page.locator(".matches li").evaluate_all(LINES)


def test_a_planted_script_is_detected(tmp_path, browser):
    (tmp_path / "page.html").write_text(f"<title>report</title>{HOSTILE[0]}")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.title() == "owned"
    page.close()


def test_no_text_of_an_answer_runs(hostile, visit):
    page = visit(hostile, "#samples")
    for _ in range(3):
        page.keyboard.press("j")
    page.fill("input[type=search]", "script")
    assert page.title() == f"salsa: {GRID.grid}"
    assert page.locator("script").count() == 2
    for tag in ("img", "iframe", "object", "base"):
        assert page.locator(tag).count() == 0, tag
    links = page.locator("a").evaluate_all(HREFS)
    assert links and all(link.startswith("#") for link in links)
    assert not page.evaluate(HANDLERS)
    shown = page.locator(".sample").inner_text()
    assert HOSTILE[0] in shown and "{{ 7 * 7 }}" in shown, "as text"
    assert not any(character in page.content() for character in COMMANDS)


def test_the_page_runs_no_other_script(hostile, tmp_path, browser):
    """If a text became markup by mistake, the Content-Security-Policy would still stop it."""
    (tmp_path / "page.html").write_text(hostile.read_text().replace("</header>", f"{HOSTILE[0]}</header>"))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.title() == f"salsa: {GRID.grid}" and page.locator("script").count() == 3
    page.close()


def test_filters_and_search(report, visit):
    page = visit(report, "#samples")
    everything = samples_of(page)
    assert len(everything) == 996, "1000 samples, equally many of 12 cells"
    page.select_option("[name=comparison]", "salsa_vs_ppo")
    page.select_option("[name=model]", "two_mini")
    page.select_option("[name=benchmark]", "arena_hard")
    page.select_option("[name=category]", "maths")
    page.select_option("[name=verdict]", "first wins")
    rows = samples_of(page)
    expected = r"\d+ · salsa wins\nsalsa against ppo\ntwo_mini, arena_hard, maths"
    assert rows and all(re.fullmatch(expected, text) for text in rows)
    assert page.locator("output").inner_text() == f"{len(rows)} of 996 samples"
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function("document.querySelectorAll('.matches li').length === 996")
    assert samples_of(page) == everything
    for text, question in (("PPO-R2-S1 SAYS 40.", "40"), ("order ba of question 7:", "7")):
        page.fill("input[type=search]", text)
        assert {row.split(" ")[0] for row in samples_of(page)} == {question}, text
    page.fill("input[type=search]", "nobody says this")
    assert page.locator(".sample").inner_text() == "No sample matches the filters."


def test_both_answers_with_their_differences_and_the_judge_in_both_orders(report, visit):
    page = visit(report, "#samples?comparison=salsa_vs_ppo")
    heads = page.locator(".answers h4")
    assert heads.all_inner_texts() == ["salsa", "ppo"]
    assert page.locator(".answers mark").all_inner_texts() == ["salsa-r1-s1", "ppo-r1-s1"]
    games = page.locator(".games > div")
    assert [text.split(":")[0] for text in games.all_inner_texts()] == ["Judge, salsa first", "Judge, ppo first"]
    assert "Order ab of question 0" in games.nth(0).inner_text()
    page.keyboard.press("s")
    assert heads.all_inner_texts() == ["ppo", "salsa"]
    assert "Order ba of question 0" in games.nth(0).inner_text()
    page.get_by_role("button", name="salsa first").click()
    assert heads.all_inner_texts() == ["salsa", "ppo"]
    assert page.evaluate("document.activeElement.textContent") == "salsa first", "the keyboard stays where it was"
    page.keyboard.press("d")
    colour = page.locator(".answers mark").first.evaluate("(mark) => getComputedStyle(mark).backgroundColor")
    assert colour == "rgba(0, 0, 0, 0)", "unmarked"
    rows = page.locator(".sample dl").inner_text()
    assert "replicate\nr1" in rows and "sft-1: 1, sft-2: 2" in rows and "RL seed\n1" in rows


def test_the_verdict_is_that_of_the_judgment(report, visit):
    judged = {}
    for replicate in FULL.replicates:
        for row in read_jsonl(judgment_file(report.parent, "one-mini", "mt_bench", "salsa_vs_ppo", replicate)):
            judged[row["a"], row["question_id"]] = "".join(game["outcome"] for game in row["games"])
    words = {"salsa wins": {"aa"}, "ppo wins": {"bb"}, "tie": {"tietie"}}
    page = visit(report, "#samples?comparison=salsa_vs_ppo&model=one-mini&benchmark=mt_bench")
    seen = set()
    for _ in range(30):
        title = page.locator(".sample h3").inner_text()
        question, said = re.fullmatch(r"Question (\d+), \w+: (.+)", title).groups()
        policy = re.search(r"run of salsa\n(.+?),", page.locator(".sample dl").inner_text())[1]
        seen.add(said)
        assert judged[policy, question] in words.get(said, {"ab", "ba", "atie", "tiea", "btie", "tieb"})
        page.keyboard.press("j")
    assert seen >= {"salsa wins", "orders disagree"}


def test_keyboard(report, visit):
    page = visit(report, "#samples")
    chosen = page.locator(".matches [aria-selected=true]")
    first = chosen.inner_text()
    page.keyboard.press("j")
    second = chosen.inner_text()
    page.keyboard.press("k")
    assert chosen.inner_text() == first != second
    page.focus(".matches")
    page.keyboard.press("ArrowDown")
    assert chosen.inner_text() == second
    page.keyboard.press("End")
    assert "996 of 996" in page.locator(".tools").inner_text()
    assert page.evaluate(CHOSEN_IS_IN_SIGHT), "the list scrolls along"
    page.keyboard.press("/")
    page.keyboard.type("jks")
    assert page.input_value("input[type=search]") == "jks", "letters in a field are text"
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    assert page.input_value("input[type=search]") == "jks"
    assert page.locator(".sample.plain").count() == 1


def test_an_address_leads_to_a_sample(report, visit):
    page = visit(report, "#samples?model=two_mini&search=what+of+5")
    page.keyboard.press("j")
    page.keyboard.press("s")
    title, rows = page.locator(".sample h3").inner_text(), samples_of(page)
    assert (
        page.get_by_role("link", name="Link to this", exact=True).get_attribute("href")
        == page.url[page.url.index("#") :]
    )
    again = visit(report, page.url[page.url.index("#") :])
    assert again.locator(".sample h3").inner_text() == title
    assert samples_of(again) == rows
    assert again.locator(".answers h4").first.inner_text() == "ppo"
    assert again.locator("#samples").evaluate("(part) => part.getBoundingClientRect().top") < 100


def test_every_link_leads_somewhere(report, visit):
    page = visit(report)
    assert page.locator(".claim").count() == len(FULL.claims)
    for claim in page.locator(".claim").all():
        links = claim.locator(".links a").evaluate_all(HREFS)
        assert any(link.startswith("#figure-") for link in links), claim.inner_text()
    links = set(page.locator("a").evaluate_all(HREFS))
    assert {"#runs-salsa_vs_ppo", "#samples?comparison=salsa_vs_ppo", "#table-improvements"} <= links
    for link in sorted(link for link in links if not link.startswith("#samples?")):
        page.goto("about:blank")
        page.goto(report.as_uri() + link)
        target = page.locator(link)
        assert target.is_visible() and target.evaluate("(part) => part.getBoundingClientRect().top") < 900, link
        assert target.evaluate("(part) => part.tagName !== 'DETAILS' || part.open"), link
    page.locator("#claim-wins_more_often .links a", has_text="Judged answers").click()
    assert page.input_value("[name=comparison]") == "salsa_vs_ppo"
    assert all("salsa against ppo" in text for text in samples_of(page))


def test_a_thousand_samples_without_lag(report, visit):
    times = visit(report, "#samples").evaluate(TIMES)
    print(times)
    assert max(times["search"], times["step"]) < QUICK, times
    assert times["first"] < 3 * QUICK, times


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_accessible_by_wcag_aa(report, visit, scheme, width):
    page = visit(report, "#samples", width, scheme)
    page.evaluate(OPEN_ALL)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    checked = Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}})
    assert not checked.response["violations"], checked.generate_report()
    assert {"color-contrast", "label"} <= {rule["id"] for rule in checked.response["passes"]}


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen_and_figures_keep_their_size(report, visit, width):
    page = visit(report, "", width)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for figure in page.locator("figure svg").all():
        points = float(re.match(r"[\d.]+", figure.get_attribute("width"))[0])
        assert figure.bounding_box()["width"] == pytest.approx(points * 96 / 72, rel=0.01), "text of 9 points"


def test_print_shows_everything_but_the_controls(report, visit):
    page = visit(report)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    for hidden in ("nav", ".filters", ".matches", ".tools", ".links"):
        assert not page.locator(hidden).first.is_visible(), hidden
    assert page.locator("#runs-salsa_vs_ppo table").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0


def test_claims_and_numbers_need_no_script(report, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("#claim-wins_more_often").is_visible()
    assert "This section needs JavaScript" in page.locator("#samples").inner_text()
    assert not page.locator(".filters").is_visible()
    context.close()
