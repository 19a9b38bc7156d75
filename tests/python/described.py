"""Checks a running platform against its own OpenAPI document, by requests that are made up from the document.

    described.py <base URL> <folder for what it leaves behind>

It fails when the document is no OpenAPI 3.1, and when an answer is not as the document says. What is made up is the same on every run.
"""

import json
import os
import sys
import urllib.request
from pathlib import Path

from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

CONFIG = Path(__file__).with_name("schemathesis.toml")
SEED = "7"
EXAMPLES = "12"


def main(base, folder):
    with urllib.request.urlopen(base + "/openapi.json", timeout=10) as answer:
        document = json.load(answer)
    errors = [f"{error.instance_path}: {error.message}" for error in OPENAPI_31_VALIDATOR.iter_errors(document)]
    if errors:
        sys.exit("the document is no OpenAPI 3.1:\n" + "\n".join(errors))
    # What has failed before is tried again on later runs, which would no longer be the same.
    os.chdir(folder)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", base + "/openapi.json"]
    command += ["--seed", SEED, "--max-examples", EXAMPLES, "--generation-database", "none", "--workers", "1"]
    os.execvp(command[0], command + ["--no-color"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
