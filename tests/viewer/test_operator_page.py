"""The operator's page in a headless browser: it fits, it is readable, and its buttons do what they say."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.operated import Operated
from tests.validators import require_tool
from tests.waiting import eventually

ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip
WIDE, NARROW = (1280, 900), (500, 900)
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = require_tool("chromium")
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=Service(require_tool("chromedriver"))) as opened:
        yield opened


@pytest.fixture
def operated(tmp_path: Path) -> Iterator[Operated]:
    operated = Operated(tmp_path)
    operated.populate()
    yield operated
    operated.close()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_page_fits_its_window_and_the_browser_finds_nothing_wrong(
    browser: Chrome, operated: Operated, size: tuple[int, int], tmp_path: Path
) -> None:
    browser.set_window_size(*size)
    browser.get(operated.url)
    assert browser.execute_script(OVERFLOW) <= 0, "tables scroll within their frames"
    assert browser.find_element(By.TAG_NAME, "body").value_of_css_property("margin") == "0px", "its style is there"
    assert [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]] == []
    folder = Path(os.environ.get("OHIF_PICTURES", tmp_path))
    if size == WIDE:
        browser.set_window_size(WIDE[0], browser.execute_script("return document.body.scrollHeight") + 150)
        assert browser.save_screenshot(str(folder / "operator.png"))


def test_a_button_has_a_dead_letter_tried_again(browser: Chrome, operated: Operated) -> None:
    browser.set_window_size(*WIDE)
    browser.get(operated.url)
    before = len(operated.ledger.list_jobs("dead"))
    browser.find_element(By.XPATH, "//button[.='Try again']").click()
    eventually(lambda: len(operated.ledger.list_jobs("dead")) == before - 1, "the job is ready again", 20)
    assert browser.current_url.rstrip("/") == operated.url
    browser.find_element(By.XPATH, "//button[.='Give up']").click()
    eventually(lambda: len(operated.ledger.list_jobs("cancelled")) == 1, "the job is cancelled", 20)
