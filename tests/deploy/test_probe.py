"""`python -m app.probe` tells a ready API from one that is not."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from app import probe


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    """Answers every question with its `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(server.status if self.path == "/health/ready" else 404)  # type: ignore[attr-defined]
            self.end_headers()
            self.wfile.write(b"the disk is full")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("API_PORT", str(server.server_port))
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "ending"), [(200, 0), (503, 1), (404, 1)])
def test_only_a_ready_api_is_healthy(server: HTTPServer, status: int, ending: int) -> None:
    server.status = status  # type: ignore[attr-defined]
    assert probe.main() == ending


def test_it_says_what_the_api_said(server: HTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.status = 503  # type: ignore[attr-defined]
    probe.main()
    assert "503 the disk is full" in capsys.readouterr().err


def test_no_answer_is_not_healthy(server: HTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.shutdown()
    server.socket.close()
    assert probe.main() == 1
    assert "no answer" in capsys.readouterr().err
