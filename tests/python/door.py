#!/usr/bin/env python3
"""A plain NATS client that does what a test tells it to, and prints what came of each step as one line of JSON.

    python3 tests/python/door.py STEPS

STEPS is JSON: `{"url": …, "steps": […]}`, where each step is one of

    {"call": SUBJECT, …payload}       publishes with an inbox, and takes everything up to the response
    {"publish": SUBJECT, …payload}    publishes with no inbox
    {"forbidden": SUBJECT, …payload}  publishes with an inbox what the broker has to refuse
    {"tap": SUBJECT}                  subscribes to what the broker has to refuse

and the payload one of `"json": VALUE`, `"msgpack": VALUE` and `"hex": BYTES`, with a `"content_type"` if the test wants
another than the payload's own. What came is a list of messages, or of the broker's words.
"""

import asyncio
import json
import sys

import msgpack
import nats

MESSAGE_PACK = "application/msgpack"
LIMIT_SECS = 20


class Client:
    def __init__(self):
        self.bus = None
        self.refusals = asyncio.Queue()

    async def connect(self, url):
        async def refused(error):
            await self.refusals.put(str(error))

        self.bus = await nats.connect(url, error_cb=refused, name="a plain client", allow_reconnect=False)

    async def call(self, subject, payload, headers):
        inbox = self.bus.new_inbox()
        answers = await self.bus.subscribe(inbox)
        await self.bus.publish(subject, payload, reply=inbox, headers=headers)
        messages = []
        while not messages or not is_response(messages[-1]):
            messages.append(read(await answers.next_msg(timeout=LIMIT_SECS)))
        await answers.unsubscribe()
        return messages

    async def publish(self, subject, payload, headers):
        await self.bus.publish(subject, payload, headers=headers)
        await self.bus.flush(LIMIT_SECS)
        return []

    async def forbidden(self, subject, payload, headers):
        inbox = self.bus.new_inbox()
        answers = await self.bus.subscribe(inbox)
        await self.bus.publish(subject, payload, reply=inbox, headers=headers)
        words = await asyncio.wait_for(self.refusals.get(), LIMIT_SECS)
        # Whatever the broker had for this inbox has come before its answer to a ping.
        await self.bus.flush(LIMIT_SECS)
        return [words] + ["an answer came"] * answers.pending_msgs

    async def tap(self, subject):
        await self.bus.subscribe(subject)
        return [await asyncio.wait_for(self.refusals.get(), LIMIT_SECS)]


def is_response(message):
    return "no_responders" in message or "result" in message["body"] or "error" in message["body"]


def read(message):
    headers = message.headers or {}
    if headers.get("Status") == "503":
        return {"no_responders": True}
    content_type = headers.get("Content-Type")
    unpack = msgpack.unpackb if content_type == MESSAGE_PACK else json.loads
    return {"content_type": content_type, "body": unpack(message.data)}


def payload(step):
    content_type = step.get("content_type")
    if "msgpack" in step:
        content_type = content_type or MESSAGE_PACK
        data = msgpack.packb(step["msgpack"])
    elif "hex" in step:
        data = bytes.fromhex(step["hex"])
    else:
        data = json.dumps(step["json"]).encode()
    return data, {"Content-Type": content_type} if content_type else None


async def main():
    told = json.loads(sys.argv[1])
    client = Client()
    await client.connect(told["url"])
    came = []
    for step in told["steps"]:
        for verb in ("call", "publish", "forbidden"):
            if verb in step:
                came.append(await getattr(client, verb)(step[verb], *payload(step)))
        if "tap" in step:
            came.append(await client.tap(step["tap"]))
    await client.bus.close()
    print(json.dumps(came))


asyncio.run(main())
