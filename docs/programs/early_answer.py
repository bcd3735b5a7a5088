"""A server that answers early: it reads four bytes of a request, says "continue", waits until it is
told to go on, answers with 413, and closes with the rest of the request unread, so that the kernel
sends a reset behind the answer.

`python3 early_answer.py` prints its port. `python3 early_answer.py twisted` runs Twisted's client
against it: its `dataReceived` writes the body when the answer and the reset are there already, as
`tests/streams/lost_data.rs` does with ours.
"""

import socket
import sys
import threading

ANSWER = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n"


def serve(listener, go, done):
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.recv(4)
    connection.sendall(b"continue")
    go.wait()
    connection.sendall(ANSWER)
    connection.close()
    done.set()


def start():
    listener = socket.create_server(("127.0.0.1", 0))
    go, done = threading.Event(), threading.Event()
    threading.Thread(target=serve, args=(listener, go, done), daemon=True).start()
    return listener.getsockname()[1], go, done


def twisted_client():
    from twisted.internet import protocol, reactor

    port, go, done = start()

    class Uploader(protocol.Protocol):
        asked = False

        def connectionMade(self):
            self.transport.write(b"POST and some that is not read")

        def dataReceived(self, data):
            print("received", data)
            if not self.asked:
                self.asked = True
                go.set()
                done.wait()
                self.transport.write(b"b" * 150_000)

        def connectionLost(self, reason):
            print("lost", reason.value)
            reactor.stop()

    factory = protocol.ClientFactory()
    factory.protocol = Uploader
    reactor.connectTCP("127.0.0.1", port, factory)
    reactor.run()


if __name__ == "__main__":
    if sys.argv[1:] == ["twisted"]:
        twisted_client()
    else:
        port, go, done = start()
        print(port, flush=True)
        sys.stdin.readline()
        go.set()
        done.wait()
