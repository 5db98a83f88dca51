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
