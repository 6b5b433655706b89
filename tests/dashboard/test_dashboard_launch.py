import socket
from pathlib import Path

import pytest
from browser import dashboard

from sizewise_core.errors import InputError
from sizewise_dashboard import streamlit_page
from sizewise_dashboard.launch import arguments, serve


def test_a_port_that_is_taken_or_impossible_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127.0.0.1 port {port}.*--port"):
            serve(tmp_path, port)
    with pytest.raises(InputError, match="--port"):
        serve(tmp_path, 70_000)


def test_the_dashboard_is_private_by_default(tmp_path: Path) -> None:
    options = arguments(tmp_path, 8501, "127.0.0.1")
    assert "--server.address=127.0.0.1" in options
    assert "--browser.gatherUsageStats=false" in options
    assert options[options.index("--") + 1 :] == [str(tmp_path)]


def test_the_platform_folder_does_not_hide_pythons_own_module() -> None:
    """Streamlit and pytest run in the repository root, whose folder `platform` must stay a plain folder."""
    import platform

    assert platform.python_version()
    assert not (Path(__file__).parents[2] / "platform" / "__init__.py").exists()


RECORDING = """
import os, socket

def recorded(name, where):
    with open(os.environ["RECORD"], "a") as file:
        file.write(f"{name} {where}\\n")

class Socket(socket.socket):
    def connect(self, address):
        recorded("connect", address)
        return super().connect(address)

    def connect_ex(self, address):
        recorded("connect", address)
        return super().connect_ex(address)

looked_up = socket.getaddrinfo

def getaddrinfo(host, *rest, **named):
    recorded("lookup", (host, *rest[:1]))
    return looked_up(host, *rest, **named)

socket.socket, socket.getaddrinfo = Socket, getaddrinfo
"""


@pytest.mark.slow
def test_no_host_but_its_own_is_asked_whoever_knocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of other sites are refused; Streamlit would compare them with an address that it asks the Internet for."""
    (tmp_path / "sitecustomize.py").write_text(RECORDING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    (tmp_path / "record").touch()
    with dashboard(tmp_path / "runs", tmp_path / "log") as address:
        own = address.removeprefix("http://")
        answers = {
            origin: _opened(own, origin)
            for origin in (
                address,
                f"http://localhost:{own.partition(':')[2]}",
                "https://evil.example",
                "null",
                "http://[",
            )
        }
    assert list(answers.values()) == [101, 101, 403, 403, 403], answers
    asked = [line for line in (tmp_path / "record").read_text().splitlines() if "127.0.0.1" not in line]
    assert [line for line in asked if "localhost" not in line and "None" not in line] == []


def _opened(host: str, origin: str) -> int:
    """The status with which a WebSocket is answered that a page of this origin opens."""
    name, _, port = host.partition(":")
    lines = ["GET /_stcore/stream HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", f"Origin: {origin}"]
    with socket.create_connection((name, int(port)), timeout=300) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(client.recv(64).split()[1])


def test_a_streamlit_with_another_page_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamlit_page, "_INDEX", tmp_path / "index.html")
    streamlit_page.page.cache_clear()
    with pytest.raises(InputError, match=r"whose page the dashboard does not know.*'streamlit==1\.67\.\*'"):
        serve(tmp_path, 8599)
