"""The page served to the browser of this machine: for clips too large for one file.

It is the very page that `page.write_page` writes, but for its blobs, which are made when the browser asks for them.
"""

import re
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from xwam.scene.flow import can_flow
from xwam.scene.page import PageContent, depth_blob, flow_blob, nearest, page, picture_blob

HOST = "127.0.0.1"
BLOB = re.compile(r"/blob/(rgb|depth|flow)-(\d{1,6})-(\d{1,6})-(\d{1,6})")


class LiveServer(ThreadingHTTPServer):
    """Serves one page on the loopback interface; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, content: PageContent, port: int):
        self.content = content
        self.nearest_m = [nearest(scene) for scene in content.scenes]
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    @cached_property
    def html(self) -> bytes:
        return page(self.content, blobs="", live=True).encode()

    def blob(self, kind: str, clip: int, view: int, frame: int) -> bytes | None:
        """A picture, depth or flow, or None if there is no such clip, view or frame, or no flow."""
        scenes = self.content.scenes
        if clip >= len(scenes) or view >= scenes[clip].rgb.shape[0] or frame >= scenes[clip].rgb.shape[1]:
            return None
        if kind == "rgb":
            return picture_blob(scenes[clip], view, frame)
        if kind == "flow":
            return flow_blob(scenes[clip], view, frame) if can_flow(scenes[clip]) else None
        return depth_blob(scenes[clip], view, frame, self.nearest_m[clip])


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer

    def do_GET(self) -> None:
        # A page from elsewhere whose name leads here must not read what is shown.
        if self.headers.get("Host") not in {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}:
            self.send_error(HTTPStatus.FORBIDDEN, "this page is for the browser of its own machine")
        elif self.path == "/":
            self._answer("text/html; charset=utf-8", self.server.html)
        elif (named := BLOB.fullmatch(self.path)) and (
            blob := self.server.blob(named[1], *map(int, named.groups()[1:]))
        ) is not None:
            self._answer("application/octet-stream", blob)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, kind: str, content: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing: a line a frame would drown what matters."""


def serve(content: PageContent, port: int) -> None:
    """Serves the page until interrupted; raises ValueError if the port is taken."""
    try:
        server = LiveServer(content, port)
    except OSError as error:
        raise ValueError(
            f"port {port} of {HOST} cannot be had ({error.strerror}): give another, or 0 for any"
        ) from error
    print(f"Open {server.url} in a browser of this machine; Ctrl-C ends it.")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
