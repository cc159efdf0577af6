"""Talks to a tinyFaaS CoAP front door with aiocoap, and prints the name of each thing that worked.

Usage: aiocoap_client.py HOST:PORT. The functions are those of tests/it/fake_handler.rs.
"""

import asyncio
import sys

from aiocoap import CON, NON, Code, Context, Message
from aiocoap.numbers.contentformat import ContentFormat

BASE = f"coap://{sys.argv[1]}"


def long(n):
    return bytes(ord("a") + i // 7 % 26 for i in range(n))


async def main():
    client = await Context.create_client_context()

    async def ask(code, path, payload=b"", mtype=CON, **options):
        message = Message(code=code, uri=f"{BASE}/{path}", payload=payload, _mtype=mtype, **options)
        return await asyncio.wait_for(client.request(message).response, 60)

    answer = await ask(Code.GET, ".well-known/core?href=/f")
    assert answer.payload == b'</f>;rt="tinyfaas.function";ct=0;title="f";obs', answer.payload
    assert answer.opt.content_format == ContentFormat.LINKFORMAT
    print("discovery")

    answer = await ask(Code.POST, "echo", b"\xff\x00hello")
    assert (answer.code, answer.payload) == (Code.CONTENT, b"\xff\x00hello"), answer
    print("call")

    for size in (1, 1024, 1025, 5000, 60000):
        answer = await ask(Code.POST, "echo", long(size))
        assert answer.payload == long(size), (size, len(answer.payload))
        answer = await ask(Code.GET, f"echo/long/{size}")
        assert answer.payload == long(size), (size, len(answer.payload))
    answers = await asyncio.gather(*(ask(Code.GET, f"echo/long/{2000 + n}") for n in range(8)))
    assert [len(answer.payload) for answer in answers] == [2000 + n for n in range(8)]
    print("blocks")

    answer = await ask(Code.POST, "echo", b"non", mtype=NON)
    assert answer.payload == b"non"
    print("non")

    answer = await ask(Code.GET, "echo/slow/1500")
    assert answer.payload == b"slow"
    print("slow")

    answer = await ask(Code.GET, "echo/fail")
    assert (answer.code, answer.payload) == (Code.INTERNAL_SERVER_ERROR, b"ValueError: it failed"), answer
    assert (await ask(Code.GET, "nosuch")).code == Code.NOT_FOUND
    print("error")

    answer = await ask(Code.PUT, "echo/changed")
    assert (answer.code, answer.opt.content_format, answer.opt.etag) == (Code.CHANGED, 60, b"v1"), answer
    head = (await ask(Code.FETCH, "echo/head?a=1&b=2", b"{}", content_format=ContentFormat.JSON)).payload.decode().lower()
    for line in ("x-tinyfaas-method: fetch", "x-tinyfaas-query: a=1&b=2", "coap-content-format: 50"):
        assert line in head, head
    print("options")

    request = client.request(Message(code=Code.GET, uri=f"{BASE}/f/count", observe=0))
    counts = [int((await asyncio.wait_for(request.response, 60)).payload)]
    async for notification in request.observation:
        counts.append(int(notification.payload))
        if len(counts) == 8:
            break
    assert counts == sorted(set(counts)), counts
    request.observation.cancel()
    print("observe")

    await client.shutdown()
    print("done")


asyncio.run(main())
