#!/usr/bin/env python3
"""Makes docs/support-matrix.md of what the tests of the matrix have seen, or with --check compares it.

Each test in tests/tests/suite/matrix.rs writes one file into target/support-matrix: one client at one server, feature by feature.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEEN = ROOT / "target/support-matrix"
PAGE = ROOT / "docs/support-matrix.md"

HEAD = """# Support matrix

Which features a client of each protocol version has at which server. Every cell was seen by a test that drives a client of that version
through the HTTP door to a real server, and the last row names it. The page is written by `make matrix` from a test run, and `make test`
fails when it no longer says what the tests have seen.

A feature that a version of the protocol does not have is told by a clear error, never by silence.
"""


def render():
    seen = [json.loads(path.read_text()) for path in sorted(SEEN.glob("*.json"))]
    if not seen:
        sys.exit(f"{SEEN} is empty; run the tests of the matrix first: make matrix")
    out = [HEAD]
    for server in sorted({one["server"] for one in seen}):
        of_server = sorted((one for one in seen if one["server"] == server), key=lambda one: one["client"])
        features = [line["feature"] for line in of_server[-1]["features"]]
        out.append(f"\n## Server: {server}\n")
        out.append("| feature | " + " | ".join(one["client"] for one in of_server) + " |")
        out.append("| --- |" + " --- |" * len(of_server))
        for feature in features:
            cells = []
            for one in of_server:
                cells.append(next((line["seen"] for line in one["features"] if line["feature"] == feature), "-"))
            out.append(f"| {feature} | " + " | ".join(cells) + " |")
        out.append("| seen by | " + " | ".join(f"`{one['test']}`" for one in of_server) + " |")
    return "\n".join(out) + "\n"


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
