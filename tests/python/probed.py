#!/usr/bin/env python3
"""A small MCP server on stdio that answers the modern question as a test asks for, and says many a thing that is no message.

    python3 tests/python/probed.py ANSWER

ANSWER is the error code with which the first `server/discover` is answered, or `silent`. With -32022 it is a modern server
that wants to be asked again; with anything else it knows nothing but `initialize`.

Its tool `heard` gives the methods that it was sent, `noisy` writes lies on stderr and garbage on stdout before it answers,
and `crash` ends it. A further tool bears the number of the process, so that each process has another list.
"""

import json
import os
import sys

ANSWER = sys.argv[1]
MODERN = ANSWER == "-32022"

heard = []


def main():
    for line in sys.stdin:
        message = json.loads(line)
        heard.append(message["method"])
        if "id" in message:
            take(message["method"], message["id"], message.get("params", {}))


def take(method, call, params):
    capabilities = {"tools": {"listChanged": not MODERN}}
    if method == "server/discover" and ANSWER == "silent":
        return
    if method == "server/discover" and MODERN and heard.count(method) > 1:
        answer(call, {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": capabilities})
    elif method == "server/discover":
        data = {"supported": ["2026-07-28"], "requested": "2026-07-28"} if MODERN else None
        say({"id": call, "error": {"code": int(ANSWER), "message": "not like this", "data": data}})
    elif method == "initialize" and not MODERN:
        info = {"name": "probed", "version": "1.0.0"}
        answer(call, {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info})
    elif method == "tools/list":
        names = ["heard", "noisy", "crash", f"pid-{os.getpid()}"]
        answer(call, {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]})
    elif method == "tools/call":
        use(params["name"], call)
    else:
        say({"id": call, "error": {"code": -32601, "message": f"{method} is not known here"}})


def use(name, call):
    if name == "crash":
        os._exit(3)
    if name == "noisy":
        lie = {"jsonrpc": "2.0", "id": call, "result": {"content": [{"type": "text", "text": "a lie"}]}}
        print(json.dumps(lie), file=sys.stderr, flush=True)
        for garbage in ["this is no message", '{"jsonrpc": "2.0", "id"', "", "[1, 2"]:
            print(garbage, flush=True)
    words = ",".join(heard) if name == "heard" else "the truth"
    answer(call, {"content": [{"type": "text", "text": words}]})


def answer(call, result):
    say({"id": call, "result": result})


def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


if __name__ == "__main__":
    main()
