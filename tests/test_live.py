"""The live viewer hands the page and its blobs to this machine alone."""

import threading
from http.client import HTTPConnection, HTTPResponse

import pytest

from world_clips import world_clip
from xwam.scene.live import LiveServer, serve
from xwam.scene.page import PageContent, depth_blob, flow_blob, nearest, picture_blob


@pytest.fixture
def server():
    server = LiveServer(PageContent({"imagined": world_clip()}), port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def get(server: LiveServer, path: str, host: str | None = None) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(*server.server_address[:2], timeout=10)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def test_the_page_has_no_blobs_and_gets_them(server):
    assert server.server_address[0] == "127.0.0.1"
    page = get(server, "/")[1].decode()
    assert '"live":true' in page and "octet-stream" not in page and "connect-src 'self'" in page
    scene = server.content.scenes[0]
    assert get(server, "/blob/rgb-0-1-2")[1] == picture_blob(scene, 1, 2)
    assert get(server, "/blob/depth-0-1-2")[1] == depth_blob(scene, 1, 2, nearest(scene))
    assert get(server, "/blob/flow-0-1-0")[1] == flow_blob(scene, 1, 0)
    answer, none = get(server, f"/blob/flow-0-1-{scene.rgb.shape[1] - 1}")
    assert answer.status == 200 and none == b""


@pytest.mark.parametrize(
    "path",
    ["/blob/rgb-1-0-0", "/blob/rgb-0-2-0", "/blob/depth-0-0-5", "/blob/rgb-0-0--1", "/blob/x-0-0-0", "/../README.md"],
)
def test_what_is_not_there_is_not_found(server, path):
    assert get(server, path)[0].status == 404


def test_a_page_from_elsewhere_gets_nothing(server):
    port = server.server_port
    assert get(server, "/", f"localhost:{port}")[0].status == 200
    for host in ("example.org", f"example.org:{port}", "127.0.0.1"):
        answer, content = get(server, "/blob/rgb-0-0-0", host)
        assert answer.status == 403 and b"own machine" in content


def test_a_taken_port_is_told(server):
    with pytest.raises(ValueError, match=f"port {server.server_port} of 127.0.0.1 cannot be had"):
        serve(server.content, server.server_port)
