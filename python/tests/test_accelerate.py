"""
Native parsing of Twisted's receivers: the same calls as with Twisted's own code, for programs that
do all that a callback may do, with streams that are cut anywhere.
"""

from __future__ import annotations

import random
import warnings
from typing import Any, Optional
from unittest import TestCase, main, mock

from ropewalk_test import program

from ropewalk import _native, accelerate
from twisted.protocols import basic
from twisted.web import http

# Each seed is one program with one stream.
SEEDS = 1500

DELIMITERS = [b"\r\n", b"\n", b"aa", b"||", b""]


class Transport:
    """
    Keeps a trace of requests.
    """

    disconnecting = False

    def __init__(self, trace: list[Any]) -> None:
        self.trace = trace

    def loseConnection(self) -> None:
        self.trace.append("loseConnection")
        self.disconnecting = True

    def pauseProducing(self) -> None:
        self.trace.append("pauseProducing")

    def resumeProducing(self) -> None:
        self.trace.append("resumeProducing")


class Trouble(Exception):
    """
    An exception of the program.
    """


class Script:
    """
    A mixin whose callbacks record what they see, and do something at random.
    """

    STATE: tuple[str, ...] = ()

    def begin(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.trace: list[Any] = []
        # Half of the programs are quiet, so that long runs of messages are seen too.
        self.boldness = self.random.choice([0, 0, 0.1, 0.5])
        self.depth = 0

    def state(self) -> dict[str, Any]:
        found = {name: getattr(self, name, "missing") for name in self.STATE}
        payload = found.get("_payload")
        if payload is not None and payload != "missing":
            found["_payload"] = (payload.getvalue(), payload.tell())
        return found

    def called(self, name: str, argument: Any) -> Any:
        self.trace.append((name, argument, self.state()))
        if self.random.random() >= self.boldness or self.depth > 3:
            return None
        self.depth += 1
        try:
            action = self.random.choice(self.actions())
            self.trace.append(action.__name__)
            return action()
        finally:
            self.depth -= 1

    def actions(self) -> list[Any]:
        return [self.raises, self.pauses, self.pausesAndResumes, self.loses, self.answers, self.limits, self.grows]

    def raises(self) -> None:
        raise self.random.choice([Trouble, ValueError, basic.IncompleteNetstring, basic.NetstringParseError])("no")

    def pauses(self) -> None:
        self.paused = True

    def pausesAndResumes(self) -> None:
        if hasattr(self, "pauseProducing") and not isinstance(self, basic.IntNStringReceiver):
            self.pauseProducing()
            self.resumeProducing()

    def loses(self) -> None:
        self.transport.loseConnection()

    def answers(self) -> Any:
        return self.random.choice([1, "why", [], b"", 0])

    def limits(self) -> None:
        self.MAX_LENGTH = self.random.choice([0, 3, 10, 100, 10**30, 12.5, -1])

    def grows(self) -> None:
        setattr(self, f"new{len(self.trace)}", 1)
        if self.random.random() < 0.5:
            delattr(self, f"new{len(self.trace)}")

    def feed(self, data: Any) -> None:
        """
        Deliver bytes, and record the outcome.
        """
        try:
            outcome: Any = ("returned", self.dataReceived(data))
        except Exception as exception:
            outcome = ("raised", type(exception), str(exception))
        self.trace.append((outcome, self.state()))


class Lines(Script, basic.LineReceiver):
    STATE = ("_buffer", "_busyReceiving", "line_mode", "paused", "delimiter", "MAX_LENGTH")
    MAX_LENGTH = 12

    def lineReceived(self, line: bytes) -> Any:
        return self.called("lineReceived", line)

    def rawDataReceived(self, data: bytes) -> Any:
        if self.random.random() < 0.7:
            extra = data[self.random.randrange(len(data)) :]
            self.trace.append(("setLineMode", data, extra))
            return self.setLineMode(extra)
        return self.called("rawDataReceived", data)

    def lineLengthExceeded(self, line: bytes) -> Any:
        self.trace.append(("lineLengthExceeded", line))
        return super().lineLengthExceeded(line) if self.random.random() < 0.3 else self.called("exceeded", line)

    def actions(self) -> list[Any]:
        return [
            *super().actions(),
            self.setRawMode,
            self.delimits,
            self.clears,
            self.replaces,
            self.recurses,
            self.forgets,
            self.unbinds,
        ]

    def delimits(self) -> None:
        self.delimiter = self.random.choice([*DELIMITERS, bytearray(b"\n")])

    def clears(self) -> None:
        self.trace.append(self.clearLineBuffer())

    def replaces(self) -> None:
        self._buffer = self.random.choice([b"", b"x\r\ny\r\n", b"z", bytearray(b"b\r\nc\r\n"), self._buffer + b"q\r\n"])

    def recurses(self) -> None:
        self.trace.append(self.dataReceived(b"deep\r\ner\r\n"))

    def forgets(self) -> None:
        self.transport = None

    def unbinds(self) -> None:
        self.lineReceived = lambda line: self.called("another", line)


class Newlines(Lines):
    delimiter = b"\n"


class Strings(Script, basic.IntNStringReceiver):
    STATE = ("_unprocessed", "_compatibilityOffset", "recvd", "paused", "MAX_LENGTH")
    structFormat = "!B"
    prefixLength = 1
    MAX_LENGTH = 12

    def stringReceived(self, string: bytes) -> None:
        self.called("stringReceived", string)

    def lengthLimitExceeded(self, length: int) -> None:
        self.trace.append(("lengthLimitExceeded", length))
        super().lengthLimitExceeded(length)

    def actions(self) -> list[Any]:
        return [*super().actions(), self.rewrites]

    def rewrites(self) -> None:
        self.recvd = self.random.choice([b"", "", b"\x01a\x02bc", bytearray(b"\x01a"), self.recvd[1:]])


class Strings16(Strings):
    structFormat = "!H"
    prefixLength = 2


class Strings64(Strings):
    structFormat = "!Q"
    prefixLength = 8


class Netstrings(Script, basic.NetstringReceiver):
    STATE = ("_remainingData", "_state", "_payload", "_currentPayloadSize", "_expectedPayloadSize", "brokenPeer")
    MAX_LENGTH = 12

    def stringReceived(self, string: bytes) -> None:
        self.called("stringReceived", string)

    def actions(self) -> list[Any]:
        return [*super().actions(), self.cuts, self.recurses]

    def cuts(self) -> None:
        self._remainingData = self.random.choice([b"", b"2:ab,", b"3:a", self._remainingData[1:]])

    def recurses(self) -> None:
        self.dataReceived(b"1:z,")


def message(kind: type, rng: random.Random) -> bytes:
    """
    Make a message that is usually sound.
    """
    if issubclass(kind, Lines):
        body = bytes(rng.choices(b"a|\r\nxyz", k=rng.choice([0, 1, 5, 11, 12, 13, 30])))
        return body + rng.choice([b"\r\n", b"\n", kind.delimiter, kind.delimiter])
    length = rng.choice([0, 1, 2, 11, 12, 12, 12, 13]) if rng.random() < 0.3 else rng.randrange(10)
    body = bytes(rng.choices(b"a1:,", k=length))
    if issubclass(kind, Strings):
        return length.to_bytes(kind.prefixLength, "big") + body
    if rng.random() < 0.05:
        return rng.choice([b"01:a,", b":", b"2:abc,", b"-1:,", b"1 :a,", b"9" * 40 + b":", b"12\n", b"x"])
    return b"%d:%s," % (length, body)


def run(kind: type, seed: int) -> list[Any]:
    """
    Deliver a stream to a program, in chunks that are cut at random.
    """
    rng = random.Random(seed)
    stream = b"".join(message(kind, rng) for _ in range(rng.randrange(1, 25)))
    protocol = kind()
    protocol.begin(seed)
    protocol.makeConnection(Transport(protocol.trace))
    while stream:
        cut = rng.choice([1, 2, 5, 40, len(stream)])
        chunk, stream = stream[:cut], stream[cut:]
        protocol.feed(bytearray(chunk) if rng.random() < 0.01 else chunk)
        if rng.random() < 0.3:
            protocol.paused = False
        if issubclass(kind, Strings) and rng.random() < 0.1:
            protocol.recvd = b"\x01a"
    return protocol.trace


class Accelerated(TestCase):
    def setUp(self) -> None:
        accelerate.on()
        self.addCleanup(accelerate.off)

    def test_random_programs_see_the_same_calls(self) -> None:
        """Calls, arguments, attributes, results and exceptions are those of Twisted's code."""
        for kind in (Lines, Newlines, Strings, Strings16, Strings64, Netstrings):
            self.assertIsNone(accelerate.reason(kind))
            native = [run(kind, seed) for seed in range(SEEDS)]
            accelerate.off()
            twisted = [run(kind, seed) for seed in range(SEEDS)]
            accelerate.on()
            for seed in range(SEEDS):
                self.assertEqual(native[seed], twisted[seed], f"{kind.__name__}, seed {seed}")
            # The programs do get somewhere.
            self.assertGreater(sum(len(trace) for trace in native), 10 * SEEDS)

    def test_native_code_is_at_work(self) -> None:
        """During a native loop the rest has no entry of its own, and is found all the same."""
        seen = []

        class Looks(basic.LineReceiver):
            def lineReceived(self, line: bytes) -> None:
                seen.append((line, "_buffer" in vars(self), self._buffer))

        protocol = Looks()
        protocol.makeConnection(Transport([]))
        protocol.dataReceived(b"a\r\nb\r\nc\r\nd")
        self.assertEqual(seen, [(b"a", False, b"b\r\nc\r\nd"), (b"b", False, b"c\r\nd"), (b"c", False, b"d")])
        self.assertEqual(vars(protocol)["_buffer"], b"d")
        # A segment that is one line leaves nothing to parse, and needs no loop.
        protocol.dataReceived(b"\r\n")
        protocol.dataReceived(b"e\r\n")
        self.assertEqual(seen[3:], [(b"d", False, b""), (b"e", True, b"")])

    def test_a_segment_that_is_one_line(self) -> None:
        """Without a loop, the attributes are the same, and bytes that are left are parsed."""
        seen: list[Any] = []

        class Line(basic.LineReceiver):
            def lineReceived(self, line: bytes) -> Any:
                seen.append((line, vars(self)["_buffer"], self._busyReceiving))
                if line == b"again":
                    return self.dataReceived(b"inner\r\nraw")
                if line == b"inner":
                    self.setRawMode()
                if line == b"close":
                    self.transport.loseConnection()
                return 0 if line == b"close" else None

            def rawDataReceived(self, data: bytes) -> None:
                seen.append(data)

        protocol = Line()
        protocol.makeConnection(Transport([]))
        self.assertIsNone(protocol.dataReceived(b"one\r\n"))
        self.assertIsNone(protocol.dataReceived(b"again\r\n"))
        protocol.setLineMode()
        self.assertEqual(protocol.dataReceived(b"close\r\n"), 0)
        expected = [(b"one", b"", True), (b"again", b"", True), (b"inner", b"raw", True), b"raw", (b"close", b"", True)]
        self.assertEqual(seen, expected)
        self.assertEqual((protocol._buffer, protocol._busyReceiving), (b"", False))

    def test_a_pause_leaves_lines_for_the_native_loop(self) -> None:
        """The end of a pause brings no bytes, and finds the lines that have come meanwhile."""
        seen = []

        class Pauses(basic.LineReceiver):
            def lineReceived(self, line: bytes) -> None:
                seen.append((line, "_buffer" in vars(self)))

        protocol = Pauses()
        protocol.makeConnection(mock.Mock(disconnecting=False))
        protocol.pauseProducing()
        protocol.dataReceived(b"a\r\nb\r\n")
        protocol.dataReceived(b"c\r\nd")
        self.assertEqual(seen, [])
        protocol.resumeProducing()
        self.assertEqual(seen, [(b"a", False), (b"b", False), (b"c", False)])
        self.assertEqual(vars(protocol)["_buffer"], b"d")

    def test_a_connection_that_closes_gets_no_further_line(self) -> None:
        """A connection of the reactor is asked itself, unless its class has another attribute."""

        class Plain(_native.Conn):
            def loseConnection(self) -> None:
                self.disconnecting = True

        class Own(_native.Conn):
            closes = False

            @property
            def disconnecting(self) -> bool:
                return self.closes

            def loseConnection(self) -> None:
                self.closes = True

        class IsFalse(Plain):
            def __bool__(self) -> bool:
                return False

        class Lines(basic.LineReceiver):
            def lineReceived(self, line: bytes) -> None:
                seen.append(line)
                if line == b"move":
                    self.transport = other
                elif line == b"close":
                    self.transport.loseConnection()

        for kind, others, expected in [
            (Plain, Plain, [b"move", b"close"]),
            (Plain, Own, [b"move", b"close"]),
            (Own, Plain, [b"move", b"close"]),
            # Twisted asks the truth of a transport first.
            (Plain, IsFalse, [b"move", b"close", b"d"]),
            (IsFalse, Own, [b"move", b"close"]),
        ]:
            for stream in (b"move\r\nclose\r\nd\r\n", b"a\r\nclose\r\nd\r\n"):
                with self.subTest(kind=kind.__name__, others=others.__name__, stream=stream):
                    seen: list[bytes] = []
                    protocol, other = Lines(), others()
                    protocol.makeConnection(kind())
                    protocol.dataReceived(stream)
                    if stream.startswith(b"move"):
                        self.assertEqual(seen, expected)
                    else:
                        self.assertEqual(seen, [b"a", b"close", b"d"] if kind is IsFalse else [b"a", b"close"])

    def test_nested_loops_of_two_protocols(self) -> None:
        """Each protocol finds its own rest while the loop of the other runs."""
        seen = []

        class Outer(basic.LineReceiver):
            def lineReceived(self, line: bytes) -> None:
                inner.dataReceived(line + b"\n1\n2\nrest")
                seen.append((self._buffer, inner._buffer))

        class Inner(basic.LineReceiver):
            delimiter = b"\n"

            def lineReceived(self, line: bytes) -> None:
                seen.append((outer._buffer, self._buffer))

        outer, inner = Outer(), Inner()
        outer.makeConnection(Transport([]))
        inner.makeConnection(Transport([]))
        outer.dataReceived(b"a\r\nb\r\nc\r\n")
        inner_rests = [b"1\n2\nrest", b"2\nrest", b"rest", b"rest"]
        self.assertEqual(seen, [(rest, inner) for rest in (b"b\r\nc\r\n", b"c\r\n", b"") for inner in inner_rests])

    def test_a_class_with_machinery_of_its_own_is_left_alone(self) -> None:
        """`reason` names the override, and Twisted's code parses, with the override."""

        class HasProperty(basic.LineReceiver):
            MAX_LENGTH = property(lambda self: 3)  # type: ignore[assignment]

        class HasHook(basic.LineReceiver):
            def __setattr__(self, name: str, value: Any) -> None:
                object.__setattr__(self, name, value)

        class HasBuffer(basic.LineReceiver):
            _buffer = b"kept"

        class Consumes(basic.NetstringReceiver):
            def _maxLengthSize(self) -> int:
                return 1

        class Reads(basic.Int8StringReceiver):
            recvd = b""  # type: ignore[assignment]

        for kind, expected in [
            (HasProperty, "its MAX_LENGTH is a property"),
            (HasHook, "it overrides __setattr__"),
            (HasBuffer, "it overrides _buffer"),
            (Consumes, "it overrides _maxLengthSize"),
            (Reads, "it overrides recvd"),
            (basic.LineOnlyReceiver, "none of its base classes is accelerated"),
            (type("Site", (http.HTTPChannel,), {}), "Twisted's own code is faster for HTTPChannel"),
        ]:
            self.assertEqual(accelerate.reason(kind), expected)
        protocol = HasProperty()
        protocol.lineReceived = mock.Mock(return_value=None)  # type: ignore[method-assign]
        protocol.lineLengthExceeded = mock.Mock(return_value=None)  # type: ignore[method-assign]
        protocol.makeConnection(Transport([]))
        protocol.dataReceived(b"abc\r\nabcd\r\n")
        protocol.lineReceived.assert_called_once_with(b"abc")
        protocol.lineLengthExceeded.assert_called_once_with(b"abcd\r\n")

    def test_private_methods_of_an_instance(self) -> None:
        """A method that a test patches on a protocol is called."""
        protocol = basic.NetstringReceiver()
        protocol.makeConnection(Transport([]))
        protocol._processPayload = mock.Mock()  # type: ignore[method-assign]
        protocol.dataReceived(b"1:a,")
        protocol._processPayload.assert_called_once_with()

    def test_on_and_off(self) -> None:
        """`off` restores the attributes, and is refused while a callback has bytes behind it."""
        accelerate.off()
        before = {name: dict(vars(getattr(basic, name))) for name in ("LineReceiver", "NetstringReceiver")}
        accelerate.on("LineReceiver,Int8StringReceiver")
        self.assertEqual(accelerate.active(), {"LineReceiver", "IntNStringReceiver"})
        self.assertEqual(dict(vars(basic.NetstringReceiver)), before["NetstringReceiver"])
        refused: list[Optional[str]] = []

        class TurnsOff(basic.LineReceiver):
            def lineReceived(self, line: bytes) -> None:
                try:
                    accelerate.off()
                except RuntimeError as error:
                    refused.append(str(error))

        protocol = TurnsOff()
        protocol.makeConnection(Transport([]))
        protocol.dataReceived(b"a\r\nb\r\n")
        self.assertEqual(refused, 2 * ["a receiver has more bytes to parse"])
        # With nothing left to parse, it is allowed there too.
        protocol.dataReceived(b"c\r\n")
        self.assertEqual(len(refused), 2)
        self.assertEqual((protocol._buffer, protocol._busyReceiving), (b"", False))
        self.assertEqual(dict(vars(basic.LineReceiver)), before["LineReceiver"])
        self.assertEqual(accelerate.active(), frozenset())

    def test_another_source_text_is_left_alone(self) -> None:
        """A Twisted that parses otherwise, or a patched one, keeps its own code, with a warning."""
        accelerate.off()

        def patched(self: Any, data: bytes) -> None:
            pass

        with mock.patch.object(basic.LineReceiver, "dataReceived", patched):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                accelerate.on()
            self.assertIs(basic.LineReceiver.dataReceived, patched)
            self.assertIn("LineReceiver is not accelerated", str(caught[0].message))
            self.assertEqual(accelerate.active(), {"IntNStringReceiver", "NetstringReceiver"})

    def test_switching_on(self) -> None:
        """The argument, the environment and the option choose; unknown names are refused."""
        code = "import ropewalk, sys; ropewalk.install({}); from ropewalk import accelerate; print(*accelerate.active())"
        for argument, environment, expected in [
            ("", "", ""),
            ("", "NetstringReceiver", "NetstringReceiver"),
            ("accelerate=False", "all", ""),
            ("accelerate={'LineReceiver'}", "all", "LineReceiver"),
        ]:
            ran = program(["-c", code.format(argument)], ROPEWALK_ACCELERATE=environment)
            self.assertEqual(ran.stdout, expected + "\n", ran.stderr)
        self.assertIn("ValueError", program(["-c", code.format("accelerate='Line'")]).stderr)
        for option, expected in [
            (["--accelerate"], {"LineReceiver", "IntNStringReceiver", "NetstringReceiver"}),
            (["--accelerate=LineReceiver"], {"LineReceiver"}),
            ([], set()),
        ]:
            ran = program(["-m", "ropewalk", *option, "shows_receivers.py"])
            self.assertEqual(set(ran.stdout.split()), expected, ran.stderr)


if __name__ == "__main__":
    main()
