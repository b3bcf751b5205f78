"""A headless Chromium without a network, driven over its DevTools protocol."""

import base64
import io
import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

import av
import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0"),
    # WebGL by the CPU
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)
PATIENCE_S = 60


class Browser:
    """One tab. What it asks for and what goes wrong in it is kept in `requests` and `errors`."""

    def __init__(self, socket: ClientConnection):
        self.socket, self.calls = socket, 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict:
        self.calls += 1
        self.socket.send(json.dumps({"id": self.calls, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=PATIENCE_S))
            if answer.get("id") == self.calls:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer["method"], answer["params"])

    def _note(self, method: str, told: dict) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown" or (method == "Log.entryAdded" and told["entry"]["level"] == "error"):
            self.errors.append(json.dumps(told))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(told))

    def open(self, url: str, width: int, height: int) -> None:
        """Opens a page and waits until it shows a moment; what was kept of the one before is forgotten."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url="about:blank")
        self.requests, self.errors = [], []
        self.call("Page.navigate", url=url)
        self.wait("document.body && document.body.dataset.shown !== undefined")

    def run(self, script: str):
        """The value of an expression."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        until = monotonic() + PATIENCE_S
        while not self.run(condition):
            assert monotonic() < until, f"never true: {condition}; {self.errors}"
            sleep(0.02)

    def press(self, key: str, code: str, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, **({"text": text} if text else {}))

    def picture(self, element: str) -> np.ndarray:
        """What is seen of an element, (H, W, 3) uint8, when all is drawn."""
        self.run(f"document.querySelector({element!r}).scrollIntoView({{ block: 'center' }})")
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        box = self.run(f"document.querySelector({element!r}).getBoundingClientRect().toJSON()")
        top = box["y"] + self.run("scrollY")
        clip = {"x": box["x"], "y": top, "width": box["width"], "height": box["height"], "scale": 1}
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png", clip=clip)["data"])
        with av.open(io.BytesIO(png), format="png_pipe") as container:
            return next(container.decode(video=0)).to_ndarray(format="rgb24")


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser of its own; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *SWITCHES, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            address = next(line for line in process.stderr if "DevTools listening" in line).split("//")[1].split("/")[0]
            tabs = json.load(urllib.request.urlopen(f"http://{address}/json", timeout=PATIENCE_S))
            with connect(
                next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"), max_size=None
            ) as s:
                yield Browser(s)
        finally:
            process.kill()
            process.wait()
