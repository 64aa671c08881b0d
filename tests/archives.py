"""Archives of image sets made in memory, and a server for them on the loopback interface."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from prffn.data.download import Archive


def to_png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def png(value: int, size: int = 24) -> bytes:
    return to_png(np.full((size, size, 3), value, np.uint8))


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


SET5 = {f"benchmark/Set5/HR/{n}.png": png(n) for n in range(5)} | {"benchmark/Set5/LR_bicubic/X2/0x2.png": png(9, 12)}
"""A small Set5 as EDSR's archive of the benchmark sets has it."""


def archive_at(url: str, content: bytes) -> tuple[Archive, ...]:
    return (Archive(url, "sha256:" + hashlib.sha256(content).hexdigest(), {"Set5": "benchmark/Set5/HR"}),)


@contextmanager
def served(content: bytes, broken: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Serves one file. Gives its address, and the list of the requests; the first `broken` answers are cut in half."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if len(requests) <= broken else content)

        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass  # the client was killed

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/benchmark.tar", requests
    server.shutdown()
    server.server_close()
