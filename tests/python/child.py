#!/usr/bin/env python3
"""A small MCP server on stdio, of the legacy era, with the fault that a test asks for.

    python3 tests/python/child.py FAULT

FAULT is one of

    none      it behaves
    exits     it ends at once
    leaves    it ends as soon as it has listed its tools
    garbage   it writes lines that are no messages, and nothing else
    babbles   it writes such a line before every message
    silent    it reads and never answers
    mute      it answers until it has listed its tools, and nothing afterwards
    stubborn  it goes on when its stdin is closed and when it is asked to end, and so does a process that it has started
"""

import json
import os
import signal
import subprocess
import sys
import time

FAULT = sys.argv[1]
TOOLS = {
    "echo": "Gives the text back.",
    "pid": "Gives the number of this process.",
    "hold": "Answers when it is let go, after one word of progress.",
    "release": "Lets every `hold` go.",
    "crash": "Ends this process.",
}

held = []


def main():
    if FAULT == "exits":
        sys.exit(3)
    if FAULT == "garbage":
        while True:
            say("this is no message")
    if FAULT == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # A signal that is ignored stays ignored in what is started.
        subprocess.Popen(["sleep", "1000"])
    for line in sys.stdin:
        if FAULT != "silent":
            take(json.loads(line))
    while FAULT == "stubborn":
        time.sleep(1000)


def take(message):
    method, call = message.get("method"), message.get("id")
    if method == "initialize":
        info = {"name": "scripted", "version": "1.0.0"}
        capabilities = {"tools": {}}
        version = message["params"]["protocolVersion"]
        answer(call, {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info})
    elif method == "tools/list":
        answer(call, {"tools": [tool(name, words) for name, words in TOOLS.items()]})
        after_list()
    elif method == "tools/call":
        use(call, message["params"])
    elif call is not None:
        send({"id": call, "error": {"code": -32601, "message": f"{method} is not known here"}})


def after_list():
    if FAULT == "leaves":
        sys.exit(3)
    if FAULT == "mute":
        for _ in sys.stdin:
            pass
        sys.exit(0)


def use(call, params):
    name, arguments = params["name"], params.get("arguments", {})
    if name == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "hold":
        held.append(call)
        token = params.get("_meta", {}).get("progressToken")
        if token is not None:
            send({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
    elif name == "release":
        for waiting in held:
            text(waiting, "released")
        text(call, str(len(held)))
        held.clear()
    else:
        text(call, arguments["text"] if name == "echo" else str(os.getpid()))


def tool(name, words):
    properties = {"text": {"type": "string"}} if name == "echo" else {}
    hints = {"readOnlyHint": name in ("echo", "pid")}
    schema = {"type": "object", "properties": properties}
    return {"name": name, "description": words, "inputSchema": schema, "annotations": hints}


def text(call, words):
    answer(call, {"content": [{"type": "text", "text": words}]})


def answer(call, result):
    send({"id": call, "result": result})


def send(message):
    if FAULT == "babbles":
        say("this is no message")
    say(json.dumps({"jsonrpc": "2.0", **message}))


def say(line):
    print(line, flush=True)


if __name__ == "__main__":
    main()
