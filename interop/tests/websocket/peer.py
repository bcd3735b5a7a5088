"""Members of the chat, by Python's `websockets`: peer.py URI AUTHORITY ROLE.

Each role prints one line for each thing that it has seen. AUTHORITY is a file of certificates, or
"-".
"""

import asyncio
import ssl
import sys

import websockets

MEMBERS, TEXTS = 20, 25


def connect():
    uri, authority = sys.argv[1:3]
    options = {}
    if authority != "-":
        options["ssl"] = ssl.create_default_context(cafile=authority)
    return websockets.connect(uri, **options)


async def enter(client, name):
    await client.send(name)
    while await client.recv() != f"* {name} has joined":
        pass


async def code_of(client):
    try:
        while True:
            await client.recv()
    except websockets.ConnectionClosed as closed:
        return closed.rcvd.code


async def member(number, entered, all_entered):
    async with connect() as client:
        await enter(client, f"member {number}")
        entered.add(number)
        if len(entered) == MEMBERS:
            all_entered.set()
        await all_entered.wait()
        for text in range(TEXTS):
            await client.send(f"{text} " + "ø" * 100)
        heard = set()
        while len(heard) < MEMBERS * TEXTS:
            text = await client.recv()
            if text.startswith("<"):
                assert text not in heard and text.endswith("ø" * 100)
                heard.add(text)
        await asyncio.wait_for(await client.ping(), 10)
    return len(heard)


async def crowd():
    """Many members at once, who hear each text of each other once."""
    entered, all_entered = set(), asyncio.Event()
    heard = await asyncio.gather(*(member(number, entered, all_entered) for number in range(MEMBERS)))
    print("heard", sum(heard))


async def faults():
    """Members that break a rule, beside one that keeps them."""
    async with connect() as good:
        await enter(good, "good")
        for name, message in [("binary", b"\0"), ("long", "x" * 16385)]:
            async with connect() as bad:
                await enter(bad, name)
                await bad.send(message)
                print(name, await code_of(bad))
        async with connect() as full:
            await enter(full, "full")
            await full.send(["x" * 8192, "x" * 8192])
            print("full", len(await full.recv()))
        await good.send("still here")
        while (text := await good.recv()) != "<good> still here":
            print(text if len(text) < 100 else len(text))


async def stay():
    """A member that stays until the server goes."""
    async with connect() as client:
        await enter(client, "stays")
        print("ready", flush=True)
        print("code", await code_of(client), flush=True)


asyncio.run({"crowd": crowd, "faults": faults, "stay": stay}[sys.argv[3]]())
