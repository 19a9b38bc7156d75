#!/usr/bin/env python3
"""A plain NATS client that asks the services protocol (ADR-32), as `nats micro` does, and prints the answers as one line of JSON.

    python3 tests/python/micro.py URL NAME

NAME is the service that is asked by its name, and its first instance by its id. The answers stand in the order of the instances.
"""

import asyncio
import json
import sys

import nats

# How long is waited for one more answer.
QUIET_SECS = 1


async def ask(bus, subject):
    inbox = bus.new_inbox()
    answers = await bus.subscribe(inbox)
    await bus.publish(subject, b"", reply=inbox)
    told = []
    while True:
        try:
            message = await answers.next_msg(timeout=QUIET_SECS)
        except nats.errors.TimeoutError:
            break
        if (message.headers or {}).get("Status") == "503":
            break
        told.append(json.loads(message.data))
    await answers.unsubscribe()
    return sorted(told, key=lambda answer: (answer["name"], answer["id"]))


async def ask_all(bus, verb, name):
    every, named, nobody = await asyncio.gather(
        ask(bus, f"$SRV.{verb}"), ask(bus, f"$SRV.{verb}.{name}"), ask(bus, f"$SRV.{verb}.nobody")
    )
    first = [answer["id"] for answer in named][:1]
    one = [answer for id in first for answer in await ask(bus, f"$SRV.{verb}.{name}.{id}")]
    return {"all": every, "named": named, "nobody": nobody, "one": one}


async def main():
    url, name = sys.argv[1:]
    # The only inboxes that the user for this may read.
    bus = await nats.connect(url, name="a plain client", inbox_prefix="_INBOX_observer", allow_reconnect=False)
    verbs = ("PING", "INFO", "STATS")
    told = await asyncio.gather(*(ask_all(bus, verb, name) for verb in verbs))
    await bus.close()
    print(json.dumps(dict(zip(verbs, told))))


asyncio.run(main())
