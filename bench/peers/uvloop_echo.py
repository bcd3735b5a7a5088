"""An echo server on asyncio's protocols and uvloop.

Prints `ready PORT`, and runs until its parent ends it.
"""

import asyncio

import uvloop


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        # uvloop sets TCP_NODELAY by itself.
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=4096)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


uvloop.run(main())
