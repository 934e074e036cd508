"""A real browser for tests: Debian's Chromium without a window, cut off from every host but this machine."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.support.programs import ProgramMissingError

T = TypeVar("T")

HOST = "aggregator.test"
"""A name of this machine in the browser: pages treat `localhost` and 127.0.0.1 in ways of their own."""

PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.1
# a page is drawn anew at any moment
_NOT_YET = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)


class Browser:
    """One window; `driver` is what selenium offers."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Open a page and forget what was noted of earlier ones."""
        self.requested()
        self.complaints()
        self.driver.get(url)

    def wait_for(self, condition: Callable[[], T], what: str) -> T:
        """Return what `condition` returns, as soon as that is true; elements that are not there yet are waited for."""
        wait = WebDriverWait(self.driver, PATIENCE_SECONDS, _LOOK_SECONDS, _NOT_YET)
        return wait.until(lambda _: condition(), f"{what}: not within {PATIENCE_SECONDS:g} s")

    def find(self, selector: str) -> WebElement:
        """Return the first element that a CSS selector matches; raises NoSuchElementException if there is none."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        """Click on an element as soon as it is there."""
        self.wait_for(lambda: self.find(selector).click() or True, f"click on {selector}")

    def type(self, selector: str, text: str) -> None:
        """Type into an element as soon as it is there, over what is in it."""
        everything = Keys.CONTROL + "a" + Keys.NULL
        self.wait_for(lambda: self.find(selector).send_keys(everything, text) or True, f"type into {selector}")

    def text(self, selector: str) -> str:
        """Return the text of an element as soon as it has one."""
        return self.wait_for(lambda: self.find(selector).text, f"text in {selector}")

    def requested(self) -> list[str]:
        """Return the addresses that pages asked any host for, since they were returned last."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "chrome:"))]

    def complaints(self) -> list[str]:
        """Return what stands in the console since it was returned last: errors of scripts, and what was forbidden."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Run a browser whose profile is in `folder` until the end of the block.

    Raises ProgramMissingError where it or its driver is not installed.
    """
    options = Options()
    options.binary_location = _program("chromium")
    for argument in (
        "--headless=new",
        "--window-size=1200,2000",
        f"--user-data-dir={folder / 'chromium'}",
        f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--no-proxy-server",
        # containers: tests run as root there, and memory to share is small
        "--no-sandbox",
        "--disable-dev-shm-usage",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # selenium downloads a driver unless it is told of one
    service = Service(_program("chromedriver"), log_output=str(folder / "chromedriver.log"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.set_page_load_timeout(PATIENCE_SECONDS)
        yield Browser(driver)
    finally:
        driver.quit()


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ProgramMissingError(
            "CHROMIUM", f"there is no `{name}`; on Debian: apt-get install chromium chromium-driver"
        )
    return path
