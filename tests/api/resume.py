"""A peer of the file server: fetches a file in two halves over two connections, and compares its
SHA-256 with that of the file.

Arguments: the server's port, its folder, and the name of the file. Behind the second half further
requests are pipelined.
"""

import hashlib
import os
import socket
import sys

PIECE = 1 << 20


def read(answers, count):
    """Yields the next bytes, so many of them."""
    while count > 0:
        piece = answers.read(min(count, PIECE))
        assert piece, f"{count} bytes are missing"
        count -= len(piece)
        yield piece


def expect(answers, line):
    assert (answered := answers.readline()) == line, f"{answered} in place of {line}"


port, folder, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
length = os.path.getsize(os.path.join(folder, name))
half = length // 2
fetched, stored = hashlib.sha256(), hashlib.sha256()

# The first connection ends in the middle of the file.
with socket.create_connection(("127.0.0.1", port), 30) as peer, peer.makefile("rb") as answers:
    peer.sendall(b"GET 0 %b\n" % name.encode())
    expect(answers, b"OK %d\n" % length)
    for piece in read(answers, half):
        fetched.update(piece)

with socket.create_connection(("127.0.0.1", port), 30) as peer, peer.makefile("rb") as answers:
    requests = "GET {half} {name}\nGET 2 small\nGET {length} {name}\nGET {beyond} {name}\nGET 0 sub/page\n"
    peer.sendall(requests.format(half=half, name=name, length=length, beyond=length + 1).encode())
    expect(answers, b"OK %d\n" % (length - half))
    for piece in read(answers, length - half):
        fetched.update(piece)
    expect(answers, b"OK 4\n")
    expect(answers, b"all\n")
    expect(answers, b"OK 0\n")
    expect(answers, b"ERROR the offset is behind the end\n")
    expect(answers, b"OK 5\n")
    expect(answers, b"page\n")

with open(os.path.join(folder, name), "rb") as file:
    while piece := file.read(PIECE):
        stored.update(piece)
assert fetched.digest() == stored.digest(), "other bytes were fetched"
print(length, "bytes are the same")
