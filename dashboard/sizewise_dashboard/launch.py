"""Start the dashboard: `serve(Path("runs"), port=8501)`.

The options that keep it private (bound to one address, no usage statistics) are set here and nowhere else.
"""

import signal
import socket
import threading
import time
from importlib import import_module
from pathlib import Path

from click import Abort
from streamlit.web import cli

from sizewise_core.errors import InputError
from sizewise_core.storage import Place, absolute
from sizewise_dashboard import streamlit_page

APP = Path(__file__).parent / "app.py"
_PAUSE = 5.0  # seconds that a first visitor has the processor to himself, before the other pages are loaded
SERVER = APP.with_name("server.py")


def serve(runs: Place, port: int, address: str = "127.0.0.1") -> int:
    """Serve the studies under `runs` in this process, until Ctrl+C or SIGTERM; returns the exit code.

    A `runs` folder that does not exist yet is fine: studies appear when they start. Raises InputError
    when `port` is taken, or for a Streamlit that the dashboard does not know.
    """
    _check_free(port, address)
    streamlit_page.page("")
    # Streamlit's server passes on, once it has ended, the signal that ended it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_warm, args=(runs,), daemon=True).start()
    try:
        # the command line is Streamlit's public interface; starting it as a child would leave an orphan
        # behind whenever this process is killed
        cli.main(arguments(runs, port, address), prog_name="streamlit", standalone_mode=False)
    except (KeyboardInterrupt, Abort):
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def arguments(runs: Place, port: int, address: str) -> list[str]:
    """Streamlit's arguments to run this package's app over `runs`."""
    options = {
        "server.port": port,
        "server.address": address,
        # said, so that Streamlit need not ask a host on the Internet what this machine's address is
        "browser.serverAddress": "localhost" if address in ("0.0.0.0", "::") else address,
        "server.headless": "true",  # no browser is opened, no e-mail address asked for
        "server.fileWatcherType": "none",  # an installed package does not change
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
    }
    settings = [f"--{name}={value}" for name, value in options.items()]
    return ["run", str(SERVER), *settings, "--", str(absolute(runs))]


def _warm(runs: Place) -> None:
    """What the first visitor would wait for: the libraries, and the study that changed last, read and drawn."""
    from sizewise import results
    from sizewise_dashboard import snapshots, tradeoff

    try:
        for name in results.studies(runs)["name"].head(1):
            tradeoff.prepare(snapshots.read(runs, name))
    except (InputError, OSError):
        pass  # whoever looks is told
    time.sleep(_PAUSE)
    for page in ("studies", "choose", "trials", "search", "compare", "data"):
        import_module(f"sizewise_dashboard.{page}")


def _check_free(port: int, address: str) -> None:
    """Streamlit would report a taken port in its log only."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"cannot listen on {address} port {port} ({error}); "
                "--port takes another number from 1024 to 65535"
            ) from None
