"""Headless Chromium, driven by its own driver, and a page in it; never on the network but for loopback."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip


def start(profile: Path) -> Any:
    """A fresh browser; skips, with the reason, where it cannot be had."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e .[test]")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium or chromedriver here: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in (*QUIET, f"--user-data-dir={profile / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(profile)})
    return selenium.Chrome(options=options, service=selenium.ChromeService(driver))


def show_as(browser: Any, width: int, height: int, scheme: str = "light") -> None:
    """The window's size, and what the visitor prefers."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    preferred = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", preferred)


OUTSIDE = """
// what sticks out of the window, but for what scrolls in a box of its own
const all = [...document.querySelectorAll('main *')];
const sticks = (e) => e.getBoundingClientRect().right > innerWidth && (e.matches('.wide') || !e.closest('.wide'));
return all.filter(sticks).map((e) => e.outerHTML.slice(0, 90));
"""
# texts whose contrast with the ground behind them is below 4.5 (WCAG 2, AA)
FAINT = r"""
const linear = (v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = (colour) => {
  const [r, g, b] = colour.match(/[\d.]+/g).map(Number).map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/, 0\)$|transparent/.test(colour)) return colour;
  }
  return 'rgb(255, 255, 255)';
};
const contrast = (e) => {
  const style = getComputedStyle(e), ink = e.namespaceURI.endsWith('svg') ? style.fill : style.color;
  const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
};
const says = (e) => !e.disabled && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
const found = [...document.querySelectorAll('main *, header *')].filter(says);
return found.filter((e) => contrast(e) < 4.5).map((e) => contrast(e) + e.outerHTML.slice(0, 90));
"""


class Page:
    """What is open in the browser, as a visitor reads it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements("css selector", css)

    def one(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def text(self, css: str) -> str:
        """As it stands in the document, not as it is laid out."""
        return self.one(css).get_property("textContent")

    def picture(self, name: str) -> bytes:
        """A screenshot; kept in the folder that PAGE_PICTURES names."""
        png = self.driver.get_screenshot_as_png()
        if os.environ.get("PAGE_PICTURES"):
            Path(os.environ["PAGE_PICTURES"], f"{name}.png").write_bytes(png)
        return png

    def said(self) -> list[str]:
        """What the console holds, which is taken from it."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def check_nothing_ran(self) -> None:
        """Nothing of the data must have run as script (see `nasty`)."""
        assert self.driver.execute_script("return window.broken") is None

    def check_layout(self, scheme: str) -> None:
        """Nothing sticks out of the window, the ground is of the scheme, and every text can be read on it."""
        ask = self.driver.execute_script
        assert ask("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert ask(OUTSIDE) == []
        red = ask("return getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
        assert (int(red) < 64) == (scheme == "dark")
        assert ask(FAINT) == []
