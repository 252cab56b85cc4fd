"""Client of a headless Chromium, which communicates over two pipes by the DevTools protocol, without a driver or a
package."""

import base64
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = (
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # the browser opens only files written by tests, and containers rarely allow a sandbox
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    # Requests of the page to other hosts fail.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def find_browser() -> str | None:
    """Return the browser of TFSCALE_BROWSER, or an installed one, or None."""
    return os.environ.get("TFSCALE_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """Browser with one page."""

    def __init__(self, executable: str) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        from_us, to_browser = os.pipe()
        from_browser, to_us = os.pipe()
        self._pid = os.posix_spawn(
            executable,
            [executable, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            os.environ,
            # The browser reads descriptor 3 and writes 4. They are first copied to higher numbers, so that neither
            # overwrites the other.
            file_actions=[
                (os.POSIX_SPAWN_DUP2, from_us, 103),
                (os.POSIX_SPAWN_DUP2, to_us, 104),
                (os.POSIX_SPAWN_DUP2, 103, 3),
                (os.POSIX_SPAWN_DUP2, 104, 4),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
        os.close(from_us)
        os.close(to_us)
        self._in, self._out = os.fdopen(from_browser, "rb"), os.fdopen(to_browser, "wb")
        self._number, self._session, self._left = 0, None, b""
        self.events: list[dict[str, Any]] = []
        """All events of the page, as messages of the protocol."""

    def __enter__(self) -> "Browser":
        pages = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in pages if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._in.close()
        self._out.close()
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and return the result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, page: Path | str) -> None:
        """Open a file or a URL of this machine and wait until it is loaded."""
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression in the page, after waiting for it if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, width: int, height: int, whole: bool = False) -> bytes:
        """Return a PNG of a window of this size, or of the whole page if `whole` is true."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def complaints(self) -> list[dict[str, Any]]:
        """Return errors and warnings on the console, exceptions, and requests to other addresses."""
        self.run("new Promise(requestAnimationFrame)")
        return [event for event in self.events if _complains(event)]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            part = os.read(self._in.fileno(), 1 << 16)
            assert part, "the browser closed the pipe"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        if "method" in answer:
            self.events.append(answer)
        return answer


def _complains(event: dict[str, Any]) -> bool:
    method, values = event["method"], event["params"]
    if method == "Runtime.consoleAPICalled":
        return values["type"] in ("error", "warning", "assert")
    if method == "Log.entryAdded":
        return values["entry"]["level"] in ("error", "warning")
    if method == "Network.requestWillBeSent":
        return not values["request"]["url"].startswith(("file:", "data:", "about:"))
    return bool(method == "Runtime.exceptionThrown")
