"""The quickstart as people see it: JupyterLab in headless Chromium, all cells run, widgets that answer.

Chromium is driven by its own protocol over a websocket (a dependency of JupyterLab brings the client): nothing has to
be installed but Chromium itself, and where it is not, the test is skipped.
"""

import json
import os
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from conftest import CHECKOUT
from nbconvert.preprocessors import ClearOutputPreprocessor

from prffn.models.pretrained import pretrained_path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
TOKEN = "quickstart"
NOTEBOOK = "[...jupyterapp.shell.widgets('main')].find(w => w.context?.path.endsWith('.ipynb'))"
NODE = f"{NOTEBOOK}.content.node"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)"),
]


class Page:
    """A tab of a running Chromium, by the DevTools protocol."""

    def __init__(self, address: str) -> None:
        from websocket import create_connection

        self.socket = create_connection(address, timeout=60, suppress_origin=True)
        self.sent = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": parameters}))
        while True:  # events come in between
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of the condition."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


@contextmanager
def running(command: list[object], log: Path, **environment: str) -> Iterator[None]:
    """A process, which ends with the context, and those that it started with it."""
    with log.open("wb") as out:
        process = psutil.Popen([*map(str, command)], stdout=out, stderr=out, env={**os.environ, **environment})
    try:
        yield
    finally:
        for started in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                started.kill()
        process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab with the quickstart, its outputs removed, as its only notebook."""
    if not pretrained_path(3).is_file():
        pytest.skip(f"the trained network is not at hand: no {pretrained_path(3)}")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = nbformat.read(CHECKOUT / "notebooks" / "00_quickstart.ipynb", 4)
    ClearOutputPreprocessor().preprocess(notebook, {})
    nbformat.write(notebook, folder / "00_quickstart.ipynb")
    # Cells out of sight stay in the page, where the test looks for them.
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"windowingMode": "none"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={TOKEN}",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    places = ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR")
    own = {name: str(tmp_path / name) for name in places} | {"JUPYTERLAB_SETTINGS_DIR": str(settings.parents[2])}
    with running(command, tmp_path / "lab.log", **own):
        yield f"http://127.0.0.1:{port}"


def answer(address: str) -> Any:
    """The JSON at an address; None while nobody answers."""
    try:
        with urllib.request.urlopen(address, timeout=10) as reply:
            return json.load(reply)
    except OSError:
        return None


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    profile = tmp_path / "chromium"
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--remote-debugging-port=0", f"--user-data-dir={profile}", "--window-size=1280,1600", "about:blank",
    ]  # fmt: skip
    with running(command, tmp_path / "chromium.log"):
        port_file = profile / "DevToolsActivePort"
        until(lambda: port_file.is_file() and port_file.read_text().count("\n"), 60, "Chromium to start")
        port = port_file.read_text().split()[0]
        tabs = until(lambda: answer(f"http://127.0.0.1:{port}/json/list"), 30, "Chromium's tab")
        yield Page(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))


def test_the_quickstart_runs_and_its_widgets_answer(server, page):
    until(lambda: answer(f"{server}/api/status?token={TOKEN}"), 180, "JupyterLab to start")
    page.call("Page.navigate", url=f"{server}/lab/tree/00_quickstart.ipynb?token={TOKEN}")

    def connected() -> bool:
        kernels = answer(f"{server}/api/kernels?token={TOKEN}") or ()
        return any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels)

    until(connected, 240, "a connected kernel")
    until(lambda: page.evaluate(f"!!{NOTEBOOK}?.content.model"), 60, "the notebook")
    page.evaluate(f"jupyterapp.shell.activateById({NOTEBOOK}.id)")
    page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")

    def code_cells() -> list[dict[str, Any]]:
        cells = page.evaluate(f"{NOTEBOOK}.content.model.toJSON().cells")
        return [cell for cell in cells if cell["cell_type"] == "code"]

    def done() -> bool:
        cells = code_cells()
        failed = [out for cell in cells for out in cell["outputs"] if out["output_type"] == "error"]
        assert not failed, failed
        return all(cell["execution_count"] for cell in cells)

    until(done, 600, "all cells to run")
    outputs = [out for cell in code_cells() for out in cell["outputs"]]
    assert not [out for out in outputs if out.get("name") == "stderr"]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 4
    assert sum("application/vnd.jupyter.widget-view+json" in out.get("data", {}) for out in outputs) == 3

    pictures = f"[...{NODE}.querySelectorAll('img.widget-image')]"
    until(lambda: page.evaluate(f"{pictures}.filter(i => i.naturalWidth > 100).length") == 4, 60, "four pictures")
    assert page.evaluate(f"{NODE}.querySelectorAll('.widget-gridbox button').length") == 64
    compared, _, region, _ = page.evaluate(f"{pictures}.map(i => i.src)")

    page.evaluate(f"{NODE}.querySelectorAll('.widget-gridbox button')[27].click()")
    until(lambda: page.evaluate(f"{pictures}[2].src") != region, 60, "the figure of another pixel")
    handle = f"{NODE}.querySelector('.noUi-handle')"
    page.evaluate(f"{handle}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'ArrowRight', bubbles: true}}))")
    until(lambda: page.evaluate(f"{pictures}[0].src") != compared, 60, "the line to move")
