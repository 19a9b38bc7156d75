#!/usr/bin/env python3
"""Makes docs/support-matrix.md of what the tests of the matrix have seen, or with --check compares it.

Each test in tests/tests/suite/matrix.rs and in its folder writes files into target/support-matrix: one client at one door to one
server, feature by feature.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEEN = ROOT / "target/support-matrix"
PAGE = ROOT / "docs/support-matrix.md"

# In the order of the page.
DOORS = {
    "HTTP": "Streamable HTTP, at `/servers/<id>/mcp`.",
    "HTTP+SSE": "The deprecated transport of 2024-11-05, at `/servers/<id>/sse`.",
    "WebSocket": "One message a text frame, at `/servers/<id>/ws`.",
    "stdio": "`trunkline bridge stdio --server <id>` as the client's child process.",
}

HEAD = """# Support matrix

Which features a client of each protocol version has at which server, by the door that it comes through. Every cell was seen by a test
that drives such a client to a real server, and the last row names it. Under a version stands a client written by hand; the official SDKs
have tables of their own, each with the version that it has settled on. The page is written by `make matrix` from a test run, and
`make test` fails when it no longer says what the tests have seen.

A feature that a version of the protocol does not have is told by a clear error, never by silence.

A client that can be asked has a process of its own at a child of the legacy era, as such a server hears once what its client can be asked
for. What changes there is told to all who listen, as what changes in the process that the others share.
"""

TAIL = """
## What does not pass

- Requests of a server to its client that the protocol does not know (`com.example/ask`), unless the client speaks of such: a legacy one by
  `experimental` or an extension that is not the protocol's own, a modern one by the extension `io.trunkline/requests` (then they are entries of
  `inputRequests`, and an answer is `{"result": …}` or `{"error": …}`). From other clients the server hears -32601 at once. They belong to a call
  of a tool, prompt or resource. Custom requests of clients, and custom notifications of both sides, pass in every pair of eras.
- Tasks at the endpoint of all servers: a client uses them at `/servers/<id>/mcp`. Their progress is asked for with `tasks/get`;
  `subscriptions/listen` does not tell of it.
- What a server declares under `extensions`, at the endpoint of all servers: it is shown at the server's own endpoint.
- What a slow reader does not take: its newest progress and the answer wait for it, older progress and log lines do not.
"""


def table(seen):
    seen = sorted(seen, key=lambda one: one["client"])
    features = [line["feature"] for line in seen[-1]["features"]]
    yield "| feature | " + " | ".join(one["client"] for one in seen) + " |"
    yield "| --- |" + " --- |" * len(seen)
    for feature in features:
        cells = (
            next((line["seen"] for line in one["features"] if line["feature"] == feature), "-") for one in seen
        )
        yield f"| {feature} | " + " | ".join(cells) + " |"
    yield "| seen by | " + " | ".join(f"`{one['test']}`" for one in seen) + " |"


def render():
    seen = [json.loads(path.read_text()) for path in sorted(SEEN.glob("*.json"))]
    if not seen:
        sys.exit(f"{SEEN} is empty; run the tests of the matrix first: make matrix")
    out = [HEAD]
    for door, words in DOORS.items():
        at_door = [one for one in seen if one["door"] == door]
        out.append(f"\n## Door: {door}\n\n{words}")
        for server in sorted({one["server"] for one in at_door}):
            out.append(f"\n### Server: {server}")
            of_server = [one for one in at_door if one["server"] == server]
            # Those of the versions, then those of the SDKs.
            for is_sdk in (False, True):
                if of_kind := [one for one in of_server if ("SDK" in one["client"]) == is_sdk]:
                    out.append("")
                    out.extend(table(of_kind))
    out.append(TAIL)
    return "\n".join(out)


def main():
    page = render()
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text() != page:
            sys.exit(f"{PAGE.relative_to(ROOT)} is not what the tests have seen; run `make matrix` and commit it")
        return
    PAGE.write_text(page)
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
