#!/usr/bin/env python3
"""A server of the Python SDK at a URL, which speaks both eras.

    python3 tests/python/remote.py TRANSPORT PORT

TRANSPORT is `streamable-http` or `sse`.
"""

import sys

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("python", version="1.0.0")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
async def count(n: int, ctx: Context) -> str:
    """Reports progress n times."""
    for at in range(1, n + 1):
        await ctx.report_progress(at, n)
    return "done"


@server.resource("note://{name}")
def note(name: str) -> str:
    """A note."""
    return f"the note {name}"


@server.prompt()
def greet(who: str) -> str:
    """Greets somebody."""
    return f"Say hello to {who}."


server.run(transport=sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]))
