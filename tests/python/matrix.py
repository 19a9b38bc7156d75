#!/usr/bin/env python3
"""A client of the Python SDK that uses every feature of the support matrix in turn, and prints what it has seen as one line of JSON.

    python3 tests/python/matrix.py SETTINGS

SETTINGS is JSON: `{"http": URL}` or `{"command": [PROGRAM, …]}`, with `"era"`, `"legacy"` or `"modern"`, and `"mark"`, the file that the
server writes when it drops a call. What is done is what `tests/npm/clients/matrix/features.mjs` does for the other SDKs.
"""

import asyncio
import json
import sys
import warnings
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import mcp_types as types
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError

# Logging, sampling, roots and subscriptions of the legacy era are deprecated, and used here all the same.
warnings.simplefilter("ignore")

SETTINGS = json.loads(sys.argv[1])
IS_MODERN = SETTINGS["era"] == "modern"
WATCHED = "test://watched-resource"
LIMIT_SECS = 20
NOTICES = {
    "resource_update": types.ResourceUpdatedNotification,
    "tool_change": types.ToolListChangedNotification,
    "prompt_change": types.PromptListChangedNotification,
}

lines = []
complaints = []


async def on_elicitation(_context, params):
    return types.ElicitResult(action="accept", content={name: "blue" for name in params.requested_schema["properties"]})


async def on_sampling(_context, _params):
    return types.CreateMessageResult(role="assistant", model="test", content=types.TextContent(type="text", text="four"))


async def on_roots(_context):
    return types.ListRootsResult(roots=[types.Root(uri="file:///home/test", name="home")])


async def on_line(params):
    lines.append(params.data)


def connect(on_notice, **answers):
    async def on_message(message):
        if isinstance(message, Exception):
            complaints.append(str(message))
        else:
            on_notice(message)

    if "http" in SETTINGS:
        server = SETTINGS["http"]
    else:
        program, *arguments = SETTINGS["command"]
        server = StdioServerParameters(command=program, args=arguments)
    mode = "2026-07-28" if IS_MODERN else "legacy"
    level = "info" if IS_MODERN else None
    # A kept answer would say nothing of the server.
    return Client(server, mode=mode, log_level=level, message_handler=on_message, cache=None, **answers)


async def text(client, name, arguments=None, **options):
    result = await client.call_tool(name, arguments or {}, **options)
    if result.is_error:
        raise RuntimeError(result.content[0].text)
    return result.content[0].text


async def code(awaited):
    try:
        await awaited
    except MCPError as error:
        return error.error.code
    return "no error"


async def tools(client):
    many = len((await client.list_tools()).tools) > 20
    return {"many": many, "text": await text(client, "test_simple_text"), "unknown": await code(text(client, "no_such_tool"))}


async def prompts(client):
    listed = any(prompt.name == "test_simple_prompt" for prompt in (await client.list_prompts()).prompts)
    return {"listed": listed, "messages": len((await client.get_prompt("test_simple_prompt")).messages)}


async def resources(client):
    content = (await client.read_resource("test://static-text")).contents[0]
    kind = "string" if isinstance(content.text, str) else "nothing"
    return {"text": kind, "missing": await code(client.read_resource("test://none"))}


async def completion(client):
    reference = types.PromptReference(name="test_prompt_with_arguments")
    completed = await client.complete(reference, {"name": "arg1", "value": "te"})
    return len(completed.completion.values) > 0


async def progress(client):
    told = []

    async def on_progress(done, _total, _message):
        told.append(int(done))

    await text(client, "test_tool_with_progress", progress_callback=on_progress)
    return told


async def cancellation(client):
    with anyio.CancelScope() as scope:

        async def on_progress(_done, _total, _message):
            scope.cancel()

        await text(client, "test_hold", {"file": SETTINGS["mark"]}, progress_callback=on_progress)
    while not Path(SETTINGS["mark"]).exists():
        await anyio.sleep(0.01)
    return {"isRejected": scope.cancelled_caught}


async def log_lines(client):
    if not IS_MODERN:
        await client.set_logging_level("info")
    lines.clear()
    await text(client, "test_tool_with_logging")
    return len(lines)


async def elicitation(client):
    once = await text(client, "test_elicitation", {"message": "Who are you?"})
    return {"once": once, "twice": await text(client, "test_input_required_result_multi_round")}


async def sampling(client):
    return await text(client, "test_sampling", {"prompt": "two and two"})


async def roots(client):
    return await text(client, "test_input_required_result_list_roots")


class Changes:
    """What a client is told of changes, in the way of its era."""

    def __init__(self):
        self.told = asyncio.Queue()

    def on_notice(self, message):
        if isinstance(message, tuple(NOTICES.values())):
            self.told.put_nowait(message.params)

    @asynccontextmanager
    async def watched(self, client, uri=None):
        """Watches one resource, or the lists; what it gives is asked for the next notice."""
        if IS_MODERN:
            wanted = {"resource_subscriptions": [uri]} if uri else {"tools_list_changed": True, "prompts_list_changed": True}
            async with client.listen(**wanted) as events:
                yield lambda: anext(events)
            return
        if uri:
            await client.subscribe_resource(uri)
        yield self.told.get
        if uri:
            await client.unsubscribe_resource(uri)

    async def resource_subscriptions(self, client):
        seen = {}
        async with self.watched(client, WATCHED) as notice:
            for key in ("uri", "again"):
                await text(client, "test_trigger_resource_update")
                seen[key] = (await notice()).uri
        seen["ended"] = "local"
        seen["after"] = await text(client, "test_simple_text")
        return seen

    async def list_changes(self, client):
        async def has():
            return any(tool.name == "test_passing_tool" for tool in (await client.list_tools()).tools)

        async with self.watched(client) as notice:
            before = await has()
            await text(client, "test_trigger_tool_change")
            await notice()
            changed = await has() != before
            await text(client, "test_trigger_prompt_change")
            await notice()
        return {"changed": changed}


@contextmanager
def feature(name):
    """What hangs is named, before the test that waits for this program gives up."""
    try:
        with anyio.fail_after(LIMIT_SECS):
            yield
    except TimeoutError:
        raise TimeoutError(f"{name} took more than {LIMIT_SECS} s")


async def main():
    changes = Changes()
    asked = connect(
        lambda _: None,
        elicitation_callback=on_elicitation,
        sampling_callback=on_sampling,
        list_roots_callback=on_roots,
        logging_callback=on_line,
    )
    async with asked as client:
        seen = {"version": client.protocol_version}
        for use in (tools, prompts, resources, completion, progress, cancellation, log_lines, elicitation, sampling, roots):
            name = use.__name__.replace("_", " ")
            with feature(name):
                seen[name] = await use(client)
    async with connect(changes.on_notice) as client:
        for use in (changes.resource_subscriptions, changes.list_changes):
            name = use.__name__.replace("_", " ")
            with feature(name):
                seen[name] = await use(client)
    seen["complaints"] = complaints
    print(json.dumps(seen))


anyio.run(main)
