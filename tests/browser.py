"""A headless Chromium that tests drive through its debugging pipe; no further package is needed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM = CHROMIUM or shutil.which("google-chrome")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--remote-debugging-pipe",
)
_KEYS = {"Enter": 13, "Escape": 27, "End": 35, "ArrowUp": 38, "ArrowDown": 40}


class Browser:
    """One page of a browser, driven over its pipe (the DevTools protocol)."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._held = b""
        self._number, self._session = 0, ""
        self._logged: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(
        self, url: str, *, width: int = 1280, height: int = 900, scheme: str = "light"
    ) -> None:
        """Load a page in a window of this size and wait until it is there; old complaints go."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url="about:blank")
        self.value("1")  # what the page before had to say has arrived
        self._logged.clear()
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression comes to in the page."""
        done = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression holds in the page."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.value(f"Boolean({expression})"):
                    return
            except AssertionError:  # the page is being replaced
                pass
            time.sleep(0.02)
        shown = self.value("document.body.innerText")
        raise AssertionError(f"never true: {expression}; the page shows:\n{shown[:3000]}")

    def press(self, *keys: str) -> None:
        """Press keys where the focus is."""
        for key in keys:
            known = {"key": key, "windowsVirtualKeyCode": _KEYS.get(key, ord(key[0].upper()))}
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            typed = {"text": text} if text else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", **known, **typed)
            self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def type(self, text: str) -> None:
        """Enter a text where the focus is."""
        self.call("Input.insertText", text=text)

    def pdf(self, *, has_backgrounds: bool = False) -> bytes:
        """The page on paper."""
        done = self.call("Page.printToPDF", printBackground=has_backgrounds, preferCSSPageSize=True)
        return base64.b64decode(done["data"])

    def picture(self, path: Path) -> None:
        """The window as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    @property
    def complaints(self) -> list[str]:
        """What this page has reported: errors, and whatever its policy refused."""
        self.value("1")  # whatever was said before this has arrived then
        return list(self._logged)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What a command of the protocol answers."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            told = answer.get("params", {})
            if answer.get("method") == "Runtime.exceptionThrown":
                self._logged.append(json.dumps(told["exceptionDetails"])[:500])
            if answer.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
                self._logged.append(told["entry"]["text"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            ready, _, _ = select.select([self._answers], [], [], 120)
            assert ready, "the browser doesn't answer"
            read = os.read(self._answers, 2**16)
            assert read, "the browser has ended"
            self._held += read
        line, _, self._held = self._held.partition(b"\0")
        return json.loads(line)


@contextmanager
def running_browser() -> Generator[Browser]:
    """A browser with one empty page; skips the test where none is on the PATH."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    to_it, commands = os.pipe()
    answers, from_it = os.pipe()

    def connect() -> None:
        # The protocol is spoken on 3 and 4; first away from them, should a pipe be there already.
        high = [fcntl.fcntl(pipe, fcntl.F_DUPFD, 10) for pipe in (to_it, from_it)]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=connect,
            close_fds=False,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_it)
        os.close(from_it)
        try:
            yield Browser(commands, answers)
        finally:
            os.close(commands)
            os.close(answers)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
