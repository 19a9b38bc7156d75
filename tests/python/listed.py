#!/usr/bin/env python3
"""A small MCP server on stdio, of the legacy era, whose list of tools is written out byte for byte.

    python3 tests/python/listed.py TOOLS

TOOLS is the JSON array that `tools/list` answers with. Every tool answers with its name.
"""

import json
import sys


def main():
    tools = sys.argv[1]
    for line in sys.stdin:
        message = json.loads(line)
        method, call = message.get("method"), message.get("id")
        if method == "initialize":
            version = message["params"]["protocolVersion"]
            info = {"name": "listed", "version": "1.0.0"}
            answer(call, json.dumps({"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}))
        elif method == "tools/list":
            answer(call, f'{{"tools":{tools}}}')
        elif method == "tools/call":
            answer(call, json.dumps({"content": [{"type": "text", "text": message["params"]["name"]}]}))
        elif call is not None:
            error = {"code": -32601, "message": f"{method} is not known here"}
            say(json.dumps({"jsonrpc": "2.0", "id": call, "error": error}))


def answer(call, result):
    say(f'{{"jsonrpc":"2.0","id":{json.dumps(call)},"result":{result}}}')


def say(line):
    print(line, flush=True)


if __name__ == "__main__":
    main()
