"""
asyncio and Twisted in one program: each of asyncio's parts that needs the loop, with Twisted's
parts between them. It prints a line for each.
"""

import asyncio
import signal
import sys

from ropewalk import asyncioreactor


async def main():
    from twisted.internet import defer, interfaces, protocol, reactor, task
    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

    class Echo(protocol.Protocol):
        def dataReceived(self, data):
            self.transport.write(data)

    loop = asyncio.get_running_loop()
    print(isinstance(reactor, AsyncioSelectorReactor), interfaces.IReactorTCP.providedBy(reactor))

    port = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), interface="127.0.0.1")
    reader, writer = await asyncio.open_connection("127.0.0.1", port.getHost().port)
    writer.write(b"x" * 1_000_000)
    print("stream", len(await reader.readexactly(1_000_000)))
    writer.close()
    await writer.wait_closed()

    print("timer", await task.deferLater(reactor, 0.01, lambda: "fired").asFuture(loop))

    async def slept():
        await asyncio.sleep(0.01)
        return "slept"

    print("gather", await asyncio.gather(slept(), slept()))
    print("deferred", await defer.Deferred.fromFuture(asyncio.ensure_future(slept())).asFuture(loop))
    print("thread", await asyncio.to_thread(lambda: "done"))

    # A timer of the engine fills a future, and nothing else wakes the loop.
    future = loop.create_future()
    reactor.callLater(0.01, future.set_result, "filled")
    print("future", await future)
    reactor.callFromThread(loop.create_task, slept())

    child = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
    print("child", await child.communicate())

    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, told.set)
    signal.raise_signal(signal.SIGUSR1)
    await told.wait()
    print("signal", loop.remove_signal_handler(signal.SIGUSR1))

    twisted = [each for each in reactor.getReaders() if each is not port and each not in reactor._internalReaders]
    print("readers", twisted)
    if sys.argv[1:] == ["stop"]:
        reactor.callLater(0, reactor.stop)
        try:
            await asyncio.sleep(1000)
        finally:
            print("cancelled")
    return "result"


try:
    print(asyncioreactor.run(main()))
except asyncio.CancelledError as e:
    print(type(e).__name__)
