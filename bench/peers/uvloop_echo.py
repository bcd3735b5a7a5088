"""An echo server on asyncio's protocols and uvloop. Prints `ready PORT`; whoever started it ends it."""

import asyncio

import uvloop


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        # TCP_NODELAY is on already: uvloop sees to that.
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=4096)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


uvloop.run(main())
