#!/usr/bin/env python3
"""examples/static_http.rs on Twisted: the same program by hand on `twisted.protocols`, line for
line where that is possible. Arguments: the folder, and where to listen (tcp:8080).

`twisted.web.static.File` is a whole server of files: a program with it has five lines. It has no
limit for a slow head or a stalled peer.
"""

import io
import mimetypes
import re
import sys
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote_to_bytes

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger
from twisted.protocols.basic import FileSender, LineReceiver
from twisted.protocols.policies import LimitTotalConnectionsFactory, TimeoutMixin

LONGEST_HEAD_BYTES = 8192
MOST_FIELDS = 64
IDLE_LIMIT = 60
HEAD_LIMIT = 10
STALL_LIMIT = 20
FAREWELL = 10

TOKEN = r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)"
REQUEST_LINE = re.compile(TOKEN + r" ([!-~]+) HTTP/1\.([01])")
FIELD = re.compile(TOKEN + r":[ \t]*([\t -~\x80-\xff]*?)[ \t]*")


class Request:
    def __init__(self, head):
        line, *fields = head
        matches = [REQUEST_LINE.fullmatch(line), *map(FIELD.fullmatch, fields)]
        if not all(matches):
            raise ValueError(head)
        self.method, self.target, self.version = matches[0].groups()
        self.fields = [(match[1].lower(), match[2]) for match in matches[1:]]

    def values(self, name):
        return [value for other, value in self.fields if other == name]

    def words(self, name):
        return [word.strip() for value in self.values(name) for word in value.split(",")]


class Part:
    """The next bytes of a file, so many of them."""

    def __init__(self, file, left):
        self.file, self.left = file, left

    def read(self, count):
        data = self.file.read(min(count, self.left))
        self.left -= len(data)
        return data


class StaticHttp(LineReceiver, TimeoutMixin):
    log = Logger()
    MAX_LENGTH = LONGEST_HEAD_BYTES
    head = None

    def connectionMade(self):
        self.factory.open.add(self)
        self.setTimeout(IDLE_LIMIT)

    def timeoutConnection(self):
        self.transport.abortConnection()

    def dataReceived(self, data):
        if data and self.head is None:
            self.begin()
        return super().dataReceived(data)

    def begin(self):
        self.head, self.size = [], 0
        self.setTimeout(HEAD_LIMIT)

    def lineReceived(self, line):
        if self.head is None:
            self.begin()
        self.size += len(line) + 2
        if self.size > LONGEST_HEAD_BYTES or len(self.head) > MOST_FIELDS + 1:
            self.lineLengthExceeded(line)
        elif line:
            self.head.append(line.decode("latin-1"))
        elif self.head:
            self.headReceived()

    def lineLengthExceeded(self, line):
        self.send(*text("431 Request Header Fields Too Large"), keeps=False)

    def headReceived(self):
        try:
            request = Request(self.head)
        except ValueError:
            self.send(*text("400 Bad Request"), keeps=False)
            return
        status, fields, length, body = self.answer(request)
        if request.method == "HEAD":
            body = None
        has_body = any(length != "0" for length in request.values("content-length"))
        has_body = has_body or request.values("transfer-encoding")
        is_last = "close" in map(str.lower, request.words("connection"))
        self.send(status, fields, length, body, keeps=request.version == "1" and not has_body and not is_last)

    def answer(self, request):
        if request.version == "1" and len(request.values("host")) != 1:
            return text("400 Bad Request")
        if request.method not in ("GET", "HEAD"):
            return text("405 Method Not Allowed", "Allow: GET, HEAD")
        target = request.target.split("?")[0]
        path = self.find(target)
        if path is None:
            return text("404 Not Found")
        if path.is_dir():
            # Two slashes at the front would be the name of another server.
            return text("301 Moved Permanently", f"Location: /{target.lstrip('/')}/")
        try:
            return answer_of(path, request)
        except OSError:
            return text("403 Forbidden")

    def find(self, target):
        """Returns the file or folder of a target. `None` if there is none within the folder."""
        name = unquote_to_bytes(target).decode(errors="surrogateescape")
        if name.endswith("/"):
            name += "index.html"
        if not name.startswith("/") or "\0" in name:
            return None
        path = (self.factory.folder / name.lstrip("/")).resolve()
        is_there = path.is_relative_to(self.factory.folder) and (path.is_file() or path.is_dir())
        return path if is_there else None

    def send(self, status, fields, length, body, keeps):
        """Sends an answer. The next request is delivered when its last byte is written."""
        connection = "keep-alive" if keeps else "close"
        common = [f"Date: {formatdate(usegmt=True)}", f"Connection: {connection}", f"Content-Length: {length}"]
        head = "\r\n".join([f"HTTP/1.1 {status}", *common, *fields, "\r\n"])
        self.transport.write(head.encode("latin-1"))
        self.pauseProducing()
        self.setTimeout(STALL_LIMIT)
        part = Part(body or io.BytesIO(), length if body else 0)
        sending = FileSender().beginFileTransfer(part, self.transport, self.taken)
        sending.addCallback(self.sent, part, keeps)
        sending.addErrback(lambda failure: self.log.failure("an answer", failure))

    def taken(self, data):
        """The peer has taken the bytes before these."""
        self.resetTimeout()
        return data

    def sent(self, _, part, keeps):
        if keeps and not part.left and not self.transport.disconnecting:
            self.head = None
            self.setTimeout(IDLE_LIMIT)
            self.resumeProducing()
        else:
            self.transport.loseConnection()

    def connectionLost(self, reason):
        self.setTimeout(None)
        self.factory.open.remove(self)
        if not self.factory.open and self.factory.drained:
            self.factory.drained.callback(None)


def text(status, *fields):
    """An answer whose body is its status."""
    return status, ["Content-Type: text/plain", *fields], len(status), io.BytesIO(status.encode())


def answer_of(path, request):
    file, stat = path.open("rb"), path.stat()
    total, tag = stat.st_size, f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    fields = [f"ETag: {tag}", "Accept-Ranges: bytes", f"Content-Type: {kind}"]
    if any(other.removeprefix("W/") in (tag, "*") for other in request.words("if-none-match")):
        return "304 Not Modified", fields, total, None
    wants_range = request.method == "GET" and all(other == tag for other in request.values("if-range"))
    part = part_of(request.values("range"), total) if wants_range else None
    if part is None:
        return "200 OK", fields, total, file
    if not part:
        return text("416 Range Not Satisfiable", f"Content-Range: bytes */{total}")
    file.seek(part.start)
    fields.append(f"Content-Range: bytes {part.start}-{part.stop - 1}/{total}")
    return "206 Partial Content", fields, len(part), file


def part_of(ranges, total):
    """The bytes of a file that a `Range` is for. `None` if the whole file is to be sent."""
    match = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", ranges[0]) if ranges else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return range(max(0, total - int(match[2])), total)
    if not match[2]:
        return range(int(match[1]), total)
    if int(match[1]) > int(match[2]):
        return None
    return range(int(match[1]), min(total, int(match[2]) + 1))


async def drain(reactor, port, factory):
    await port.stopListening()
    if factory.open:
        factory.drained = Deferred()
        for connection in list(factory.open):
            connection.transport.loseConnection()
        deadline = reactor.callLater(FAREWELL, lambda: [c.transport.abortConnection() for c in list(factory.open)])
        await factory.drained
        if deadline.active():
            deadline.cancel()


async def main(reactor, folder=".", description="tcp:8080"):
    factory = LimitTotalConnectionsFactory()
    factory.protocol, factory.connectionLimit = StaticHttp, 10000
    factory.folder, factory.open, factory.drained = Path(folder).resolve(), set(), None
    port = await serverFromString(reactor, description).listen(factory)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(drain(reactor, port, factory)))
    print("listening on", port.getHost(), flush=True)
    await Deferred()


task.react(lambda reactor, *args: Deferred.fromCoroutine(main(reactor, *args)), sys.argv[1:])
