"""Drive a page in headless Chromium over its DevTools pipe: real keys, real widths, what it asks for and complains of.

One browser serves all pages of a test module; no package and no network is needed.
"""

import base64
import fcntl
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import TypeAdapter

from tests.browser import CHROMIUM, MEASURE, Layout

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
_SECONDS = 30
_AXE = Path(__file__).parent / "vendored" / "axe.min.js"
"""axe-core 4.14.1 of Deque Systems, Mozilla Public License 2.0, as published; its licence lies beside it."""
_SERIOUS = ("serious", "critical")
Answer = Mapping[str, Any]
_KEYS = {
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Home": 36,
    "End": 35,
    "Tab": 9,
    "Escape": 27,
}


class Browser:
    """A running Chromium with one tab."""

    def __init__(self) -> None:
        assert CHROMIUM is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        inward, outward = os.pipe(), os.pipe()
        words = [CHROMIUM, *_OPTIONS, f"--user-data-dir={self._profile.name}", "about:blank"]

        def connect() -> None:  # Chromium reads the descriptor 3 and writes to 4
            reading, writing = (fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (inward[0], outward[1]))
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        self._process = subprocess.Popen(words, preexec_fn=connect, pass_fds=(3, 4), stderr=subprocess.DEVNULL)
        os.close(inward[0])
        os.close(outward[1])
        self._to, self._from, self._unread = inward[1], outward[0], b""
        self._number, self._session = 0, ""
        self.complaints = list[str]()
        """errors and warnings of the console, and scripts that failed, since the page was opened"""
        self.requests = list[str]()
        """addresses that the page asked for, except data within it"""
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._send("Browser.close")
        self._process.wait(_SECONDS)
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def open(
        self, page: Path, width: int = 1280, dark: bool = False, printed: bool = False, scripts: bool = True
    ) -> None:
        """Open a page from its file, in a window of this width."""
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", media="print" if printed else "screen", features=[scheme])
        self._send("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.complaints.clear()
        self.requests.clear()
        self._send("Page.navigate", url=page.resolve().as_uri())
        end = time.monotonic() + _SECONDS
        while self.run("document.readyState + location.href") != f"complete{page.resolve().as_uri()}":
            assert time.monotonic() < end, "the page does not load"
            time.sleep(0.02)
        if scripts:
            self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page; the page's policy does not apply to it."""
        answer = self._send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def layout(self) -> Layout:
        """Measure how the page is laid out."""
        return TypeAdapter(Layout).validate_python(self.run(f"({MEASURE})()"))

    def violations(self) -> list[str]:
        """Return what axe-core finds in the page as shown, of serious or critical impact."""
        self.run(f"{_AXE.read_text(encoding='utf-8')};0")
        options = {"resultTypes": ["violations"], "iframes": False, "preload": False}
        results = self.run(f"axe.run(document, {json.dumps(options)})")["violations"]
        return [
            f"{each['id']}: {node['target'][0]}: {node['failureSummary']}"
            for each in results
            if each["impact"] in _SERIOUS
            for node in each["nodes"]
        ]

    def press(self, key: str) -> None:
        """Press a key in whatever has the focus."""
        for kind in ("rawKeyDown", "keyUp"):
            self._send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS[key])

    def point(self, x: float, y: float) -> None:
        """Move the pointer to a place in the window."""
        self._send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path: Path) -> None:
        """Store a picture of the whole page."""
        content = self._send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(content))

    def _send(self, method: str, **options: Any) -> Answer:
        self._number += 1
        message = {"id": self._number, "method": method, "params": options}
        if self._session:
            message["sessionId"] = self._session
        content = memoryview(json.dumps(message).encode() + b"\0")
        while content:
            content = content[os.write(self._to, content) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: Answer = answer.get("result", {})
                return result
            self._note(answer)

    def _read(self) -> Answer:
        while b"\0" not in self._unread:
            content = os.read(self._from, 1 << 16)
            assert content, "Chromium ended"
            self._unread += content
        message, _, self._unread = self._unread.partition(b"\0")
        answer: Answer = json.loads(message)
        return answer

    def _note(self, event: Answer) -> None:
        details = event.get("params", {})
        match event.get("method"):
            case "Runtime.consoleAPICalled" if details["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(details["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(details["exceptionDetails"]))
            case "Log.entryAdded" if details["entry"]["level"] in ("error", "warning"):
                self.complaints.append(details["entry"]["text"])
            case "Network.requestWillBeSent" if not details["request"]["url"].startswith("data:"):
                self.requests.append(details["request"]["url"])
