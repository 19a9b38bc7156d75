#!/usr/bin/env python3
"""The conformance fixture on the Python SDK: both eras, on stdio, or over HTTP with `--http PORT`.

    python3 tests/python/conformance.py [--http PORT]

The lists and fixed answers are in tests/conformance/offer.json, which the fixtures on the TypeScript SDKs read as well.
"""

import asyncio
import json
import re
import socket
import sys
import warnings
from pathlib import Path

import anyio
import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata

# Logging, sampling and roots are deprecated, and served here all the same.
warnings.simplefilter("ignore")

OFFER = json.loads((Path(__file__).parents[1] / "conformance" / "offer.json").read_text())
MODERN = "2026-07-28"
PAUSE_SECS = 0.05
WATCHED = "test://watched-resource"
WORDS = ["hello", "test", "tested", "testing"]
IDS = ["1", "12", "123", "2"]
# What each kind of question needs of the client, and what answers it.
ASKS = {
    "sampling/createMessage": ("sampling", types.CreateMessageRequest, types.CreateMessageResult),
    "elicitation/create": ("elicitation", types.ElicitRequest, types.ElicitResult),
    "roots/list": ("roots", types.ListRootsRequest, types.ListRootsResult),
}

listeners = InMemorySubscriptionBus()
# The legacy sessions, with the resources that each watches.
sessions = {}
changing = {"tool": False, "prompt": False, "version": 0}


class Again(Exception):
    """The client has to answer first, and call again."""

    def __init__(self, requests, state):
        self.result = types.InputRequiredResult(input_requests=requests, request_state=state)


def invalid(message, data=None):
    return MCPError(code=types.INVALID_PARAMS, message=message, data=data)


def fill(value, arguments):
    """Puts arguments where a text names them in braces."""
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: str(arguments.get(found[1], found[0])), value)
    if isinstance(value, dict):
        return {key: fill(each, arguments) for key, each in value.items()}
    return [fill(each, arguments) for each in value] if isinstance(value, list) else value


def text(words):
    return types.CallToolResult(content=[types.TextContent(type="text", text=words)])


# Asking the client.


async def ask(ctx, params, rounds, keeps_state):
    """Gives the answers to all questions, or says that the client has to call again."""
    capabilities = ctx.session.client_capabilities
    for request in [each for questions in rounds for each in questions.values()]:
        need = ASKS[request["method"]][0]
        if getattr(capabilities, need, None) is None:
            data = {"requiredCapabilities": {need: {}}}
            raise MCPError(code=types.MISSING_REQUIRED_CLIENT_CAPABILITY, message=f"this needs {need}", data=data)
    if ctx.protocol_version >= MODERN:
        return ask_by_answer(params, rounds, keeps_state)
    answers = {}
    for questions in rounds:
        asked = [ask_now(ctx, request) for request in questions.values()]
        answers.update(zip(questions, await asyncio.gather(*asked)))
    return answers


async def ask_now(ctx, request):
    _, asks, answers = ASKS[request["method"]]
    metadata = ServerMessageMetadata(related_request_id=ctx.request_id)
    answer = await ctx.session.send_request(asks.model_validate(request), answers, metadata=metadata)
    return dump(answer)


def ask_by_answer(params, rounds, keeps_state):
    responses = {key: dump(each) for key, each in (params.input_responses or {}).items()}
    asked, answers = 1 if responses and not keeps_state else 0, {}
    # The SDK signs the state and checks what comes back.
    if params.request_state is not None:
        asked, answers = json.loads(params.request_state)
    for number, questions in enumerate(rounds, start=1):
        if number < asked:
            continue
        if number == asked and questions.keys() <= responses.keys():
            answers.update({key: responses[key] for key in questions})
            continue
        requests = {key: ASKS[each["method"]][1].model_validate(each) for key, each in questions.items()}
        raise Again(requests, json.dumps([number, answers]) if keeps_state else None)
    return answers


def dump(model):
    return model if isinstance(model, dict) else model.model_dump(by_alias=True, mode="json", exclude_none=True)


def answering_again(handle):
    async def handled(ctx, params):
        try:
            return await handle(ctx, params)
        except Again as again:
            return again.result

    return handled


# Tools.


async def list_tools(ctx, params):
    passing = {"name": "test_passing_tool", "description": "Is there at times.", "inputSchema": {"type": "object"}}
    return types.ListToolsResult(tools=OFFER["tools"] + [passing] * changing["tool"])


@answering_again
async def call_tool(ctx, params):
    name, arguments = params.name, params.arguments or {}
    if name in OFFER["results"]:
        return types.CallToolResult.model_validate(OFFER["results"][name])
    if name in OFFER["questions"]:
        return await ask_and_answer(ctx, params, arguments)
    if name == "test_custom_header":
        return text(arguments["value"])
    if name == "json_schema_2020_12_tool":
        return text(f"Hello, {arguments.get('name', 'world')}!")
    if name == "test_passing_tool" and changing["tool"]:
        return text("It is there now.")
    if name in ACTIONS:
        action, done = ACTIONS[name]
        await action(ctx)
        return text(done)
    raise invalid(f"there is no tool `{name}`")


async def ask_and_answer(ctx, params, arguments):
    question = fill(OFFER["questions"][params.name], arguments)
    rounds = question["rounds"]
    if question.get("declaredOnly"):
        declared = ctx.session.client_capabilities

        def possible(questions):
            needs = {key: ASKS[each["method"]][0] for key, each in questions.items()}
            return {key: questions[key] for key in questions if getattr(declared, needs[key], None) is not None}

        rounds = [possible(questions) for questions in rounds]
    answers = await ask(ctx, params, rounds, question["keepsState"])
    opening = "state-ok: " if params.name.endswith("_state") else ""
    return text(opening + json.dumps(answers))


async def log(ctx, line):
    await ctx.session.send_log_message("info", line, related_request_id=ctx.request_id)


async def log_thrice(ctx):
    for line in ["Tool execution started", "Tool processing data", "Tool execution completed"]:
        await log(ctx, line)
        await anyio.sleep(PAUSE_SECS)


async def log_once(ctx):
    await log(ctx, "a level was asked for")


async def progress(ctx):
    for done in [0, 50, 100]:
        await ctx.session.report_progress(done, 100)
        await anyio.sleep(PAUSE_SECS)


async def pause(ctx):
    await anyio.sleep(2 * PAUSE_SECS)


async def change_tools(ctx):
    changing["tool"] = not changing["tool"]
    await listeners.publish(ToolsListChanged())
    for session in list(sessions):
        await session.send_tool_list_changed()


async def change_prompts(ctx):
    changing["prompt"] = not changing["prompt"]
    await listeners.publish(PromptsListChanged())
    for session in list(sessions):
        await session.send_prompt_list_changed()


async def update_resource(ctx):
    changing["version"] += 1
    await listeners.publish(ResourceUpdated(uri=WATCHED))
    for session, watched in list(sessions.items()):
        if WATCHED in watched:
            await session.send_resource_updated(WATCHED)


ACTIONS = {
    "test_tool_with_logging": (log_thrice, "Logging test completed"),
    "test_logging_tool": (log_once, "Logging tool completed"),
    "test_tool_with_progress": (progress, "Progress test completed"),
    "test_reconnection": (pause, "Reconnection test completed"),
    "test_trigger_tool_change": (change_tools, "Tool list change triggered"),
    "test_trigger_prompt_change": (change_prompts, "Prompt list change triggered"),
    "test_trigger_resource_update": (update_resource, "Resource update triggered"),
}


# Prompts, resources, and the rest.


async def list_prompts(ctx, params):
    passing = {"name": "test_passing_prompt", "description": "A prompt that is there at times."}
    return types.ListPromptsResult(prompts=OFFER["prompts"] + [passing] * changing["prompt"])


@answering_again
async def get_prompt(ctx, params):
    name, arguments = params.name, params.arguments or {}
    prompt = next((each for each in OFFER["prompts"] if each["name"] == name), None)
    if prompt is None:
        raise invalid(f"there is no prompt `{name}`")
    for argument in prompt.get("arguments", []):
        if argument["name"] not in arguments:
            raise invalid(f"prompt `{name}` needs the argument `{argument['name']}`")
    if name in OFFER["questions"]:
        question = OFFER["questions"][name]
        answers = await ask(ctx, params, question["rounds"], question["keepsState"])
        words = f"The context is: {answers['user_context'].get('content')}"
        messages = [{"role": "user", "content": {"type": "text", "text": words}}]
    else:
        messages = fill(OFFER["messages"][name], arguments)
    return types.GetPromptResult(messages=messages)


async def list_resources(ctx, params):
    return types.ListResourcesResult(resources=OFFER["resources"])


async def list_templates(ctx, params):
    return types.ListResourceTemplatesResult(resource_templates=OFFER["templates"])


async def read_resource(ctx, params):
    uri = str(params.uri)
    contents = OFFER["contents"].get(uri)
    if uri == WATCHED:
        contents = {"uri": uri, "mimeType": "text/plain", "text": f"Written {changing['version']} times."}
    found = re.fullmatch(r"test://template/([^/]+)/data", uri)
    if found:
        data = {"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"}
        contents = {"uri": uri, "mimeType": "application/json", "text": json.dumps(data)}
    if contents is None:
        raise invalid(f"there is no resource {uri}", {"uri": uri})
    return types.ReadResourceResult(contents=[contents])


async def complete(ctx, params):
    known = WORDS if getattr(params.ref, "name", None) == "test_prompt_with_arguments" else IDS
    values = [word for word in known if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


# Each request has a session object of its own, so the one that stays is found by the connection behind it.
async def initialized(ctx, params):
    sessions[ctx.session] = set()


def watched_by(ctx):
    return next(
        (watched for session, watched in sessions.items() if session._connection is ctx.session._connection), set()
    )


async def subscribe(ctx, params):
    watched_by(ctx).add(str(params.uri))
    return types.EmptyResult()


async def unsubscribe(ctx, params):
    watched_by(ctx).discard(str(params.uri))
    return types.EmptyResult()


async def set_level(ctx, params):
    return types.EmptyResult()


class Fixture(Server):
    def create_initialization_options(self, notification_options=None, *others, **named):
        options = notification_options or NotificationOptions(prompts_changed=True, tools_changed=True)
        return super().create_initialization_options(options, *others, **named)


def new_server():
    hint = CacheHint(ttl_ms=60_000, scope="public")
    cached = ["tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"]
    server = Fixture(
        "conformance",
        version="1.0.0",
        cache_hints=dict.fromkeys(cached, hint),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=unsubscribe,
        on_subscriptions_listen=ListenHandler(listeners),
        on_completion=complete,
        on_set_logging_level=set_level,
    )
    server.add_notification_handler("notifications/initialized", types.NotificationParams, initialized)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience="conformance"))
    return server


async def on_stdio():
    server = new_server()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


async def on_http(port):
    import uvicorn

    listener = socket.create_server(("127.0.0.1", port))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(new_server().streamable_http_app(), log_level="warning")
    server = uvicorn.Server(config)

    async def end_with_input():
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = server.force_exit = True

    ending = asyncio.create_task(end_with_input())
    await server.serve([listener])
    ending.cancel()


if __name__ == "__main__":
    at = sys.argv.index("--http") if "--http" in sys.argv else None
    asyncio.run(on_stdio() if at is None else on_http(int(sys.argv[at + 1])))
