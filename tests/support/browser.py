"""A headless Chromium, driven through chromedriver's HTTP interface (W3C WebDriver), without a library for it."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

MISSING = (
    None
    if shutil.which("chromium") and shutil.which("chromedriver")
    else ("Chromium is not installed (Debian: apt-get install chromium chromium-driver)")
)
"""Why pages cannot be tested here; None if they can."""

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


class Page:
    """One window of the browser."""

    def __init__(self, session: str) -> None:
        self._session = session

    def _ask(self, path: str, **body: Any) -> Any:
        answer = requests.post(f"{self._session}/{path}", json=body, timeout=120).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(f"{answer['error']}: {answer['message']}")
        return answer

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._ask("goog/cdp/execute", cmd=name, params=parameters)

    def open(self, page: Path | str) -> None:
        """Load a page from the disk, or from an address."""
        self._ask("url", url=page.absolute().as_uri() if isinstance(page, Path) else page)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns, or what its promise resolves to."""
        return self._ask("execute/sync", script=script, args=list(arguments))

    def wait_for(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.run(f"return Boolean({expression})"):
            assert time.monotonic() < deadline, f"{expression} stayed false"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press and release a key."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._ask("actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """Show the page as on a screen of this size and theme."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[theme])

    def picture(self, whole: bool = True) -> bytes:
        """A PNG of the page."""
        shot = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def console(self) -> list[str]:
        """Messages of the console since the last call."""
        return [entry["message"] for entry in self._ask("se/log", type="browser")]

    def requests_made(self) -> list[str]:
        """Addresses that pages asked for since the last call; ``data:`` addresses ask nobody."""
        entries = [json.loads(entry["message"])["message"] for entry in self._ask("se/log", type="performance")]
        sent = [entry["params"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]
        of_pages = [request for request in sent if not request["documentURL"].startswith("chrome://")]  # not a new tab
        addresses = [request["request"]["url"] for request in of_pages]
        return [address for address in addresses if not address.startswith("data:")]


@contextmanager
def chromium() -> Iterator[Page]:
    """A browser with a fresh profile; it ends on exit."""
    with tempfile.TemporaryDirectory() as profile, tempfile.TemporaryFile() as log:
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert driver.stdout is not None
            port = (
                next(line for line in driver.stdout if "successfully on port" in line).rstrip(".\n").rpartition(" ")[2]
            )
            root = f"http://127.0.0.1:{port}/session"
            wanted = {
                "goog:chromeOptions": {"args": [*_FLAGS, f"--user-data-dir={profile}"]},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            opened = requests.post(root, json={"capabilities": {"alwaysMatch": wanted}}, timeout=120).json()["value"]
            assert "sessionId" in opened, opened
            session = f"{root}/{opened['sessionId']}"
            try:
                yield Page(session)
            finally:
                requests.delete(session, timeout=60)
        finally:
            driver.terminate()
            driver.wait(30)
