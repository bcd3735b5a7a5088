#!/usr/bin/env python3
"""examples/submit.rs on Twisted: the same program, line for line where that is possible.

twisted.mail.smtp has a whole client, whose use takes some 15 lines. Arguments: where to connect,
the file with the authority's certificate, the server's name, the sender, the recipients."""

import os
import re
import sys
from base64 import b64encode
from itertools import chain, repeat

from twisted.internet import reactor, ssl, task
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.protocols.basic import LineReceiver

LONGEST_REPLY = 20_000
REPLY_TIMEOUT = 600


class Smtp(LineReceiver):
    MAX_LENGTH = 2000
    failure = None

    def __init__(self):
        self.reply = ""
        self.replies = DeferredQueue(size=1)

    def lineReceived(self, line):
        self.reply += line.decode(errors="replace")
        if not re.match(rb"[0-9]{3}", line) or len(self.reply) > LONGEST_REPLY:
            raise ValueError(f"the server sent no reply of SMTP: {self.reply!r}")
        if line[3:4] == b"-":
            self.reply += " / "
        else:
            reply, self.reply = self.reply, ""
            self.replies.put(reply)

    def lineLengthExceeded(self, line):
        raise ValueError(f"the server sent a line of more than {self.MAX_LENGTH} bytes")

    def connectionLost(self, reason):
        self.failure = reason
        for waiting in list(self.replies.waiting):
            waiting.errback(reason)

    async def replied(self, what, digit):
        """Waits for a reply whose code begins with this digit. Errors have `what` in them."""
        if self.failure is not None and not self.replies.pending:
            self.failure.raiseException()
        reply = await self.replies.get().addTimeout(REPLY_TIMEOUT, reactor)
        if not reply.startswith(digit):
            raise ValueError(f"the server refuses {what}: {reply}")

    async def ask(self, command, secret, digit):
        """Sends a command, and waits for its reply. `secret` is the part that no error may show."""
        if self.replies.pending or {"\r", "\n"} & set(command):
            raise ValueError(f"{command!r} has two lines, or the server has replied to it already")
        self.sendLine((command + secret).encode())
        await self.replied(command, digit)

    def startTLS(self, options):
        if self.replies.pending or self.reply or self.clearLineBuffer():
            raise ValueError("the server sent text behind its reply to STARTTLS, and before the handshake")
        self.transport.startTLS(options)

    async def submit(self, options, login, addresses, mail):
        """Submits a mail. The first of the addresses is the sender's."""
        await self.replied("the connection", "2")
        await self.ask("EHLO localhost", "", "2")
        await self.ask("STARTTLS", "", "2")
        self.startTLS(options)
        await self.ask("EHLO localhost", "", "2")
        if login is not None:
            login = "\0" + login.replace(":", "\0", 1)
            await self.ask("AUTH PLAIN ", b64encode(login.encode()).decode(), "2")
        for address, command in zip(addresses, chain(["MAIL FROM"], repeat("RCPT TO"))):
            await self.ask(f"{command}:<{address}>", "", "2")
        await self.ask("DATA", "", "3")
        self.transport.write(stuffed(mail))
        await self.replied("the mail", "2")
        try:
            await self.ask("QUIT", "", "2")
        except Exception as error:
            print(f"the mail is sent. No goodbye: {error}", file=sys.stderr)


def stuffed(mail):
    lines = ("." * line.startswith(".") + line + "\r\n" for line in mail.splitlines())
    return ("".join(lines) + ".\r\n").encode()


async def main(endpoint, authorities, name, *addresses):
    with open(authorities) as file:
        trusted = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(file.read())])
    options = ssl.optionsForClientTLS(name, trustRoot=trusted)
    mail, login = sys.stdin.read(), os.environ.get("SUBMIT_LOGIN")
    smtp = await connectProtocol(clientFromString(reactor, endpoint), Smtp())
    await smtp.submit(options, login, addresses, mail)


task.react(lambda _reactor, *args: Deferred.fromCoroutine(main(*args)), sys.argv[1:])
