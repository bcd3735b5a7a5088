"""
Parses segments and ends: C{receivers.py WHO RECEIVER MESSAGES SEGMENTS}, with "twisted" or "native"
for WHO. A segment has so many messages of 40 bytes. There is no socket: the transport is in memory.
The instructions of two runs with different numbers of segments, subtracted, are those of the
segments alone.
"""

import sys

from twisted.protocols import basic

MESSAGE = b"x" * 40

SEGMENTS = {
    "LineReceiver": MESSAGE + b"\r\n",
    "LineOnlyReceiver": MESSAGE + b"\r\n",
    "Int32StringReceiver": b"\0\0\0\x28" + MESSAGE,
    "NetstringReceiver": b"40:" + MESSAGE + b",",
}


class Transport:
    """
    All that the loops ask of a transport.
    """

    disconnecting = False


def main():
    who, name = sys.argv[1:3]
    messages, segments = map(int, sys.argv[3:])
    if who == "native":
        from ropewalk import accelerate

        accelerate.on()

    class Protocol(getattr(basic, name)):
        def lineReceived(self, line):
            pass

        def stringReceived(self, string):
            pass

    protocol = Protocol()
    protocol.makeConnection(Transport())
    segment = SEGMENTS[name] * messages
    for _ in range(segments):
        protocol.dataReceived(segment)


main()
