"""Debian's Chromium without a window, for tests; they are skipped where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")

_FLAGS = (
    "--headless",
    "--no-sandbox",  # which root cannot have
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    # It is to ask for nothing but the page.
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Every piece of text that is seen, as (ratio, text): its colour against the nearest ground behind it (WCAG 2, 1.4.3).
_CONTRASTS = """
const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
const channels = colour => colour.match(/[\\d.]+/g).map(Number);
const ground = element => {
  for (; element; element = element.parentElement) {
    const colour = channels(getComputedStyle(element).backgroundColor);
    if (colour.length === 3) return colour;
  }
  return [255, 255, 255];
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
while (walker.nextNode()) {
  const text = walker.currentNode.nodeValue.trim(), element = walker.currentNode.parentElement;
  if (!text || !element.checkVisibility() || element.closest('script')) continue;
  const [low, high] = [light(channels(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => a - b);
  found.push([(high + .05) / (low + .05), text]);
}
return found;
"""


class Browser:
    """One tab; what it asks the network for and complains of is read from its logs."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str, *, width: int = 1280, scheme: str = "light", script: bool = True) -> None:
        """Open `url`, all that was before forgotten."""
        self.driver.get("about:blank")
        self.complaints()
        self.asked_for()
        self._tell("Emulation.setScriptExecutionDisabled", value=not script)
        self._tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 500
        )
        self.driver.get(url)

    def texts(self, selector: str) -> list[str]:
        """What is to be read in each element that matches and is seen."""
        seen = "[...document.querySelectorAll(arguments[0])].filter(element => element.checkVisibility())"
        return list(self.driver.execute_script(f"return {seen}.map(element => element.innerText)", selector))

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def until(self, condition: Callable[[], T]) -> T:
        """Look until `condition` is true; return what it returned."""
        return WebDriverWait(self.driver, 10, poll_frequency=0.02).until(lambda _: condition())

    def contrasts(self) -> list[tuple[float, str]]:
        return [(ratio, text) for ratio, text in self.run(_CONTRASTS)]

    def complaints(self) -> list[str]:
        """What the console was told since the last look: errors, and what the page's policy forbade."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def asked_for(self) -> set[str]:
        """The URLs that were asked for since the last look."""
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {
            entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"
        }

    def _tell(self, command: str, **parameters: object) -> None:
        self.driver.execute_cdp_cmd(command, parameters)


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile; skips the test where there is none."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no browser here: install Debian's chromium and chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = Chrome(options=options, service=ChromeService(executable_path=chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
