#!/usr/bin/env python3
"""An MCP server on stdio, of the legacy era, that asks its client and notes everything that it hears.

    python3 tests/python/asking.py FILE

FILE gets a line of JSON for each message: the number of the process, and the message. A client that can be asked is asked within
calls of these tools:

    confirm   the user, once
    twice     the user, and then the user again
    own       the client what no revision of the protocol defines, `com.example/choose`
    page      the user to open a page, by the error of 2025-11-25, whenever the call before was not of this tool
    odd       nobody; its result is of a kind that nobody knows
    noisy     nobody; it writes a line of each log level
    hold      nobody; it says that it has begun, and never answers
    touch     nobody; it says that the resource `uri` has changed
    crash     nobody; it ends this process
"""

import json
import os
import sys

NAMES = ["confirm", "twice", "own", "page", "odd", "noisy", "hold", "touch", "crash"]
LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]

before = None


def main():
    while (message := hear()) is not None:
        take(message)


def hear():
    line = sys.stdin.readline()
    if not line:
        return None
    message = json.loads(line)
    with open(sys.argv[1], "a", encoding="utf-8") as file:
        file.write(json.dumps({"pid": os.getpid(), "message": message}) + "\n")
    return message


def take(message):
    method, call = message.get("method"), message.get("id")
    params = message.get("params", {})
    if call is None or method is None:
        return
    if method == "initialize":
        capabilities = {
            "tools": {},
            "logging": {},
            "resources": {"subscribe": True},
            "tasks": {"list": {}},
        }
        info = {"name": "asking", "version": "1.0.0"}
        answer(call, {"protocolVersion": params["protocolVersion"], "capabilities": capabilities, "serverInfo": info})
    elif method == "tools/list":
        answer(call, {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in NAMES]})
    elif method == "resources/list":
        answer(call, {"resources": [{"uri": f"asking://{at}", "name": str(at)} for at in range(3)]})
    elif method == "tools/call":
        use(call, params)
    elif method == "resources/subscribe" and params["uri"] == "asking://missing":
        refuse(call, -32002, "there is no such resource", {"uri": params["uri"], "asked": 1.0})
    elif method in ("logging/setLevel", "resources/subscribe", "resources/unsubscribe"):
        answer(call, {})
    elif method == "com.example/ask":
        send({"method": "com.example/told", "params": params})
        answer(call, {"own": params.get("own")})
    else:
        refuse(call, -32601, f"{method} is not known here")


def use(call, params):
    global before
    name, arguments = params["name"], params.get("arguments", {})
    last, before = before, name
    if name in ("confirm", "twice"):
        answers = [elicit(f"{name}-{at}") for at in range(1 if name == "confirm" else 2)]
        text(call, json.dumps(answers))
    elif name == "own":
        text(call, json.dumps(ask("own", "com.example/choose", {"of": [1.0, {"x": None}]})))
    elif name == "page" and last != name:
        page = {"mode": "url", "url": "https://example.com/sign-in", "message": "Sign in.", "elicitationId": "e"}
        refuse(call, -32042, "open the page", {"elicitations": [page]})
    elif name == "odd":
        answer(call, {"resultType": "odd", "content": []})
    elif name == "crash":
        os._exit(7)
    elif name == "hold":
        token = params.get("_meta", {}).get("progressToken")
        send({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
    else:
        if name == "touch":
            send({"method": "notifications/resources/updated", "params": {"uri": arguments["uri"]}})
        if name == "noisy":
            for level in LEVELS:
                send({"method": "notifications/message", "params": {"level": level, "data": level}})
        text(call, name)


def elicit(number):
    """Asks the user, and waits for what comes of it."""
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}}
    return ask(number, "elicitation/create", {"message": f"Which colour ({number})?", "requestedSchema": schema})


def ask(number, method, params):
    """Makes a request of the client, and waits for what comes of it."""
    send({"id": number, "method": method, "params": params})
    while (message := hear()) is not None:
        if message.get("id") == number and "method" not in message:
            return message.get("result", message.get("error"))
        take(message)
    sys.exit(0)


def text(call, words):
    answer(call, {"content": [{"type": "text", "text": words}]})


def refuse(call, code, words, data=None):
    error = {"code": code, "message": words}
    send({"id": call, "error": error if data is None else {**error, "data": data}})


def answer(call, result):
    send({"id": call, "result": result})


def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


if __name__ == "__main__":
    main()
