"""Who may look at the viewer, and what `unweave view` says about that."""

import socket
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.testclient import TestClient

from unweave.cli import main
from unweave.config import Sampling
from unweave.viewer import server
from unweave.viewer.session import Session
from unweave.viewer.web import MOST_SENT, application


@pytest.fixture(scope="module")
def session():
    return Session.open("rooms-cpu", "", "cpu", Sampling(steps=5))


@contextmanager
def client(session, host="127.0.0.1", password="", only_here=True):
    with TestClient(application(session, password, only_here), base_url=f"http://{host}:7860") as found:
        yield found


def test_every_answer_forbids_other_addresses(session):
    with client(session) as visitor:
        for path in ("/", "/config", "/nothing"):
            policy = visitor.get(path).headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "http" not in policy
        assert visitor.get("/docs").status_code == 404


def test_on_this_machine_it_answers_to_no_other_name(session):
    for host in ("127.0.0.1", "localhost"):
        with client(session, host) as visitor:
            assert visitor.get("/config").status_code == 200
    with client(session, "elsewhere.example") as visitor:
        assert visitor.get("/config").status_code == 400
    with client(session, "elsewhere.example", only_here=False) as visitor:
        assert visitor.get("/config").status_code == 200


def test_password(session):
    with client(session, password="open sesame") as visitor:
        assert visitor.get("/config").status_code == 401
        wrong = visitor.post("/login", data={"username": "me", "password": "open barley"})
        assert wrong.status_code == 400
        assert visitor.get("/config").status_code == 401
        assert visitor.post("/login", data={"username": "me", "password": "open sesame"}).status_code == 200
        assert visitor.get("/config").status_code == 200


def test_too_large_an_upload_is_refused_by_the_server_too(session):
    with client(session) as visitor:
        sent = [("files", ("large.png", b"0" * (MOST_SENT + 1)))]
        assert visitor.post("/gradio_api/upload", files=sent).status_code == 413
        assert visitor.post("/gradio_api/upload", files=[("files", ("small.png", b"0"))]).status_code == 200


def test_no_file_of_the_machine_is_served(session, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    with client(session) as visitor:
        assert visitor.get(f"/gradio_api/file={tmp_path / 'secret.txt'}").status_code == 403


@pytest.fixture
def started(monkeypatch, session):
    """Starts `unweave view` as far as serving; returns the sockets that it would serve."""
    served = []
    monkeypatch.setattr(Session, "open", lambda *_: session)
    monkeypatch.setattr(uvicorn.Server, "run", lambda _, sockets: served.extend(s.getsockname() for s in sockets))
    return served


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        ([], ""),
        (["--host", "localhost"], ""),
        (
            ["--host", "0.0.0.0"],
            "anyone who can connect to 0.0.0.0 can see, send pictures and rename units: give a --password",
        ),
        (["--host", "0.0.0.0", "--password", "sesame"], "are sent unencrypted"),
    ],
)
def test_loopback_unless_told_and_then_with_a_warning(arguments, warning, started, capsys):
    assert main(["view", "--port", "0", *arguments]) == 130
    said = capsys.readouterr().err
    host = arguments[1] if arguments else "127.0.0.1"
    ((address, port),) = started
    assert address == {"localhost": "127.0.0.1"}.get(host, host)
    assert f"http://{host}:{port}" in said
    assert warning in said
    assert ("warning" in said) == bool(warning)


def test_mistakes(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["view", "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in capsys.readouterr().err
    assert main(["view", "--port", "70000"]) == 2
    assert "port is 70000" in capsys.readouterr().err
    assert main(["view", "no-such-model", "--port", "0"]) == 2
    assert "no model 'no-such-model'" in capsys.readouterr().err
    monkeypatch.setattr(server, "find_spec", lambda _: None)
    assert main(["view"]) == 2
    assert capsys.readouterr().err.strip() == "error: the viewer is not installed: pip install 'unweave[viewer]'"
