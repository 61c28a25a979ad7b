"""The report of jobs as a page: in a browser without a network, of hostile text, and of thousands of calls."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import browser
import pytest
from conftest import missing_engine
from engines import EngineMissing
from fake_stats import job
from matplotlib.image import imread

from lithops_mini import costs
from lithops_mini.errors import InputError, LithopsMiniError
from lithops_mini.failures import Failure
from lithops_mini.html import page
from lithops_mini.html.calls import COLUMNS
from lithops_mini.html.markup import digest, text
from lithops_mini.html.notebook import executor_html, futures_html
from lithops_mini.measures import stragglers
from lithops_mini.plots.calls import timeline
from lithops_mini.progress import Counters
from lithops_mini.records import Attempt, CallStats, Platform, Requests, Usage

SCRIPT = "document.title='owned'"
EVIL = f'</script><script>{SCRIPT}</script><img src=x onerror="{SCRIPT}">\u202e\x1b[2J\ud800'
TRACE = f'Traceback (most recent call last):\n  File "study.py", line 12, in parse\nValueError: {EVIL}\n'

Row = dict[str, str]


@pytest.fixture(scope="module")
def chromium() -> None:
    try:
        browser.program()
    except EngineMissing as error:
        missing_engine(str(error))


def failure(call: CallStats) -> Failure:
    name = {"error": "ValueError", "timeout": "CallTimeout"}.get(call.status, "WorkerDied")
    trace = TRACE if call.status == "error" else ""
    return Failure(
        call.call_id, name, f"{EVIL} {call.call_id}", "study.py:12 in parse", trace, call.attempt, EVIL, EVIL
    )


def report(calls: int, workers: int) -> page.Report:
    """A map and a reduce whose every text is hostile."""
    stages = []
    for name, stats in job(calls, workers):
        stats = [replace(call, worker_id=f"{call.worker_id}{EVIL}") if call.worker_id else call for call in stats]
        failed = [failure(call) for call in stats if call.status not in ("ok", "cancelled")]
        again = [
            Attempt(call.call_id, 1, None, None, None, 0.0, EVIL, "died", f"exit code 3 {EVIL}")
            for call in stats
            if call.attempt > 1
        ]
        stages.append(page.Stage(f"{name} {EVIL}", stats, failed, again))
    section = page.Section(f"Section {EVIL}", ["", EVIL], [[EVIL, "1"]], [EVIL])
    return page.Report(f"job {EVIL}", {EVIL: EVIL}, stages, Requests(20, 30, 1), [section])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[page.Report, Path]:
    """A report of ten thousand calls, with one picture: what pictures cost, others know."""
    told = report(10_000, 500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "KINDS", {"timeline": timeline})
        return told, Path(page.write(told, tmp_path_factory.mktemp("large") / "report.html"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[page.Report, Path]:
    """A report of some hundred calls, with all its pictures."""
    told = report(300, 20)
    return told, Path(page.write(told, tmp_path_factory.mktemp("small") / "report.html"))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "KINDS", {})


def table(document: str) -> tuple[list[Row], str]:
    """The rows of the table of calls, and which of all they are."""
    body = document[document.index('<table id="table">') :]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body[body.index("<tbody>") : body.index("</tbody>")], re.DOTALL)
    keys = [key for key, *_ in COLUMNS]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    (where,) = re.findall(r'<output id="where">(.*?)</output>', document)
    return [dict(zip(keys, row, strict=True)) for row in cells], where


@pytest.mark.usefixtures("chromium")
def test_ten_thousand_calls_are_sorted_and_filtered(large: tuple[page.Report, Path], tmp_path: Path) -> None:
    told, path = large
    calls = [(stage.name, call) for stage in told.stages for call in stage.calls]
    rows, where = table(browser.document(path, "#calls?sort=-function&show=failed&size=1000"))
    failed = [call for _, call in calls if call.status not in ("ok", "cancelled")]
    assert where == f"1 to {len(failed)} of {len(failed)}"
    ran = sorted((call for call in failed if call.started is not None), key=lambda call: -(call.function_time or 0))
    assert [row["call"].replace(",", "") for row in rows[: len(ran)]] == [str(call.call_id) for call in ran]
    assert {row["function"] for row in rows[len(ran) :]} <= {"-"}
    assert all(row["error"].startswith(("ValueError", "CallTimeout", "WorkerDied")) for row in rows)

    # A click on a heading, words in the filter, and the next page: as a person does it.
    script = """
        const headings = [...document.querySelectorAll("#table th button")];
        headings.find((each) => each.textContent === "Memory").click();
        const filter = document.getElementById("filter");
        filter.value = "OK reduce";
        filter.dispatchEvent(new Event("input"));
        document.getElementById("next").click();
        document.body.dataset.address = location.hash;
    """
    source = path.read_text(encoding="utf-8")
    source = source.replace("script-src ", f"script-src {digest(script)} ").replace(
        "</body>", f"<script>{script}</script></body>"
    )
    clicked = tmp_path / "clicked.html"
    clicked.write_text(source, encoding="utf-8")
    document = browser.document(clicked)
    rows, where = table(document)
    wanted = [call for name, call in calls if name.startswith("reduce") and call.status == "ok"]
    wanted.sort(key=lambda call: -call.peak_memory)
    assert where == f"51 to {len(wanted)} of {len(wanted)}"
    assert [row["call"] for row in rows] == [str(call.call_id) for call in wanted[50:]]
    assert 'data-address="#calls?sort=-memory&amp;filter=OK+reduce&amp;page=2"' in document
    assert re.search(r'<th[^>]* aria-sort="descending"><button[^>]*>Memory<', document)


@pytest.mark.usefixtures("chromium")
def test_text_of_jobs_is_text_and_the_page_needs_nothing_else(large: tuple[page.Report, Path]) -> None:
    _, path = large
    source = path.read_text(encoding="utf-8")
    assert "<img src=x" not in source
    assert source.count("<script") == 2
    assert "\u202e" not in source
    assert "\x1b" not in source
    addresses = re.findall(r'<[a-z][^>]*? (?:src|href)="([^"]*)"', source)
    sections = {f"#part-{n}" for n in range(source.count("<section"))}
    assert {address.partition(",")[0] for address in addresses} == {"data:image/svg+xml;base64"} | sections
    assert not re.search(r"@import|url\(", source)
    document = browser.document(path)
    assert "<title>job &lt;/script&gt;" in document
    assert "<img src=" not in document.replace('<img src="data:', "")
    rows, where = table(document)
    assert where.endswith("of 10,100")
    assert "&lt;/script&gt;" in rows[0]["stage"]


@pytest.mark.usefixtures("chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_how_it_looks(dark: bool, small: tuple[page.Report, Path], tmp_path: Path) -> None:
    browser.screenshot(small[1], tmp_path / "look.png", width=1200, height=2600, dark=dark)
    look = imread(tmp_path / "look.png")[..., :3]
    assert look.shape[:2] == (2600, 1200)
    ground = look[5, 5].mean()
    assert ground < 0.2 if dark else ground == 1.0
    picture = look[1700:2500, 100:1100]  # inside the pictures
    assert abs(float(picture[..., 1].mean()) - float(ground)) < 0.3
    assert float(picture.std()) > 0.02  # something is drawn there
    blue = (look[..., 2] - look[..., 0] > 0.3).mean()
    assert blue > 0.002


def test_every_part_is_told(small: tuple[page.Report, Path]) -> None:
    told, path = small
    html = path.read_text(encoding="utf-8")
    for title in ("Summary", "Pictures", "Failures", "Stragglers", "Cold starts and distribution", "Retries", "Calls"):
        assert f"<h2>{title}</h2>" in html
    assert f"<h2>{text('Section ' + EVIL)}</h2>" in html
    assert html.count('src="data:image/svg+xml;base64,') == 5
    slow = [call for stage in told.stages for call in stragglers(stage.calls)]
    assert f"<b>{len(slow)}</b><span>stragglers</span>" in html
    assert text(TRACE.strip()) in html
    assert text(f"exit code 3 {EVIL}") in html


@pytest.mark.usefixtures("no_pictures")
def test_stragglers_and_what_they_cost() -> None:
    plain = next(call for call in job(20, 4)[0][1] if call.status == "ok")
    calls = [
        replace(plain, call_id=n, submitted=0.0, dispatched=0.5, started=1.0, ended=3.0, settled=3.5) for n in range(10)
    ]
    slow = replace(calls[0], call_id=10, ended=9.0, settled=9.5)
    told = page.Report("job", {}, [page.Stage("map", [*calls, slow])])
    assert stragglers([*calls, slow]) == [slow]
    assert "map: 1 of 11 calls ran for more than 4 s. The stage ended 6 s later than without them." in page.render(told)


@pytest.mark.usefixtures("no_pictures")
def test_a_bill_is_a_section() -> None:
    stats = job(10, 4)[0][1]
    bill = costs.bill(
        [costs.Stage("map", stats, Usage({1024: 20_000}, 10))], Platform(service="aws_lambda"), costs.read_prices()
    )
    section = page.bill_section(bill)
    assert section.rows[-1][0] == "total"
    html = page.render(page.Report("job", {}, [page.Stage("map", stats)], sections=[section]))
    assert "<h2>Cost</h2>" in html
    assert text(bill.title) in html
    assert text(costs.dollars(bill.dollars)) in html


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "render", lambda told: "page")
    told = page.Report("3f9c", {}, [page.Stage("map", job(1, 1)[0][1])])
    assert page.write(told) == "3f9c.html"
    assert page.write(told, "new/") == "new/3f9c.html"
    assert page.write(told, tmp_path / "new") == str(tmp_path / "new" / "3f9c.html")
    assert page.write(told, "a/run.v2") == "a/run.v2.html"
    assert page.write(told, "a/run.HTM") == "a/run.HTM"
    assert (tmp_path / "a" / "run.v2.html").read_text() == "page"


def test_where_it_cannot_be_written_is_told_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "render", lambda told: pytest.fail("it is drawn"))
    (tmp_path / "file").touch()
    told = page.Report("job", {}, [page.Stage("map", job(1, 1)[0][1])])
    with pytest.raises(
        LithopsMiniError, match=r"cannot write .*x\.html: .*file is a file, not a directory; name another"
    ):
        page.write(told, tmp_path / "file" / "x.html")


def test_without_matplotlib_there_is_a_report_without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    html = page.render(report(20, 4))
    assert "There are none: plots need matplotlib" in html
    assert "pip install &#x27;lithops_mini[plot]&#x27;" in html
    assert "<img" not in html
    assert "<h2>Calls</h2>" in html


@pytest.mark.usefixtures("no_pictures")
def test_reasons_for_another_attempt_are_one_but_for_what_is_counted_or_named_in_them() -> None:
    again = [replace(call, attempt=2, status="ok", worker_id="w0") for call in job(8, 1)[0][1]]
    whys = [f"RequestId: 8f5d1c0e-0000-4000-8000-00000000000{n} Error: exit status 1" for n in range(8)]
    lost = [Attempt(n, 1, None, None, None, 0.0, f"lost{n}", "died", why) for n, why in enumerate(whys)]
    late = Attempt(7, 1, None, None, None, 0.0, "w0", "timeout", whys[0])
    html = page.render(page.Report("job", {}, [page.Stage("map", again, attempts=[*lost, late])]))
    assert f"<td>died</td><td>RequestId: # Error: exit status #, for example: {whys[0]}</td></tr>" in html
    assert "<td>8</td><td>0-7</td><td>died</td>" in html
    assert f"<td>1</td><td>7</td><td>timeout</td><td>{whys[0]}</td></tr>" in html
    assert "<b>9</b><span>workers</span>" in html
    assert '<th scope="row">workers</th><td>9</td>' in html
    assert "workers are those of every attempt that is known" in html


@pytest.mark.usefixtures("chromium", "no_pictures")
def test_marks_and_errors_are_in_sight(tmp_path: Path) -> None:
    stages = []
    for name, stats in job(300, 20):
        stats = [replace(call, worker_id=f"localhost/{call.worker_id}.1") for call in stats]
        failed = [
            replace(failure(call), message="line 12 is not JSON")
            for call in stats
            if call.status not in ("ok", "cancelled")
        ]
        stages.append(page.Stage(f"{name} (M000)", stats, failed))
    path = Path(page.write(page.Report("job", {}, stages), tmp_path / "report.html"))
    script = """
        const table = document.getElementById("table");
        document.body.dataset.error = table.querySelector("td.error").getBoundingClientRect().right;
        document.body.dataset.table = table.offsetWidth;
    """
    source = path.read_text(encoding="utf-8").replace("script-src ", f"script-src {digest(script)} ")
    path.write_text(source.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")

    def measured(fragment: str) -> tuple[float, float]:
        shown = browser.document(path, fragment)
        right, width = (float(number) for number in re.findall(r'data-(?:error|table)="([0-9.]+)"', shown))
        return right, width

    assert measured("#calls?show=failed")[0] < 640
    assert measured("#calls?filter=ok")[1] < 1280


def test_nothing_settled_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no call has been settled"):
        page.write(page.Report("job", {}, [page.Stage("map", [])]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_notebooks_show_is_text_too() -> None:
    counters = Counters(total=20, done=12, running=2, failed=3)
    calls = [call for call in job(300, 20)[0][1] if call.status == "error"]
    shown = futures_html(EVIL, counters, [failure(call) for call in calls])
    assert "12 of 20 done, 2 running, 3 failed" in shown
    assert "ValueError" in shown
    assert "<script" not in shown + executor_html(EVIL, {EVIL: EVIL}, [(EVIL, counters)])
