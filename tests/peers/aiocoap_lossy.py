"""Calls through a relay that loses datagrams, with aiocoap; prints how many calls were made, each of which was answered right.

Usage: aiocoap_lossy.py HOST:PORT. The functions are those of tests/it/fake_handler.rs.
"""

import asyncio
import sys

from aiocoap import CON, Code, Context, Message, TransportTuning

BASE = f"coap://{sys.argv[1]}"


class Patient(TransportTuning):
    """Repeats itself sooner and more often, so that the test is short and certain."""

    ACK_TIMEOUT = 0.2
    MAX_RETRANSMIT = 8
    # The pause would double to 51 s.
    ACK_RANDOM_FACTOR = 1.1


def long(n):
    return bytes(ord("a") + i // 7 % 26 for i in range(n))


async def main():
    client = await Context.create_client_context()
    calls = 0

    async def ask(code, path, payload=b""):
        nonlocal calls
        calls += 1
        message = Message(code=code, uri=f"{BASE}/{path}", payload=payload, _mtype=CON, transport_tuning=Patient())
        answer = await asyncio.wait_for(client.request(message).response, 120)
        assert answer.code == Code.CONTENT, answer
        return answer.payload

    for n in range(25):
        assert await ask(Code.POST, "echo", b"%d" % n) == b"%d" % n
    assert await ask(Code.GET, "echo/slow/300") == b"slow"
    assert await ask(Code.POST, "echo", long(6000)) == long(6000)
    assert await ask(Code.GET, "echo/long/6000") == long(6000)
    await client.shutdown()
    print("done", calls)


asyncio.run(main())
