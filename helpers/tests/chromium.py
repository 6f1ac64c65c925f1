"""A headless Chromium that reaches nothing but files, driven through the DevTools protocol, for tests."""
import contextlib
import itertools
import json
import shutil
import subprocess
import time
import urllib.request

import pytest
import websocket


@contextlib.contextmanager
def started(folder, kind):
    """Yield a tab, of the class `kind`, of a Chromium in `folder`; skip the test where there is none."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium here to open the page in")
    running = subprocess.Popen(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--remote-debugging-port=0",
         f"--user-data-dir={folder}", "--host-resolver-rules=MAP * ~NOTFOUND", "about:blank"],
         stderr=subprocess.DEVNULL)
    try:
        until, port = time.monotonic() + 60, folder / "DevToolsActivePort"
        while not (port.exists() and port.read_text().count("\n")):
            assert running.poll() is None and time.monotonic() < until, "Chromium did not start"
            time.sleep(0.05)
        yield kind(port.read_text().split()[0])
    finally:
        running.terminate()
        running.wait()


class Tab:
    """A tab of Chromium, without a network; `events`, what it told."""

    def __init__(self, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            target, = (target for target in json.load(answer) if target["type"] == "page")
        self.socket = websocket.create_connection(target["webSocketDebuggerUrl"], suppress_origin=True,
                                                  timeout=60)
        self.numbers, self.events = itertools.count(1), []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1,
                  uploadThroughput=-1)
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method, **arguments):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": arguments}))
        while (message := json.loads(self.socket.recv())).get("id") != number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def run(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path, address=""):
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=path.as_uri() + address)
        self.wait()

    def wait(self):
        """Return when the page has been read."""
        until = time.monotonic() + 60
        while self.run("document.readyState") != "complete":
            assert time.monotonic() < until, self.events
            time.sleep(0.02)
