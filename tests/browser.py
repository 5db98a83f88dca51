"""Headless Chromium, driven by its own driver; never on the network but for loopback."""

from __future__ import annotations

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
