"""
Native parsing for Twisted's receivers of messages, for programs that ask for it::

    import ropewalk

    ropewalk.install(accelerate=True)

C{dataReceived} of these classes of L{twisted.protocols.basic} is replaced, for all protocols that
inherit it: L{LineReceiver<twisted.protocols.basic.LineReceiver>}, L{IntNStringReceiver
<twisted.protocols.basic.IntNStringReceiver>} (so C{Int8StringReceiver}, C{Int16StringReceiver} and
C{Int32StringReceiver}) and L{NetstringReceiver<twisted.protocols.basic.NetstringReceiver>}. It
calls the same methods in the same order, and keeps the same attributes.

A class that overrides a part of the private machinery runs Twisted's own code, as it did before;
L{reason} tells why. Nothing is replaced in a Twisted whose receivers have other source text than
that which the native code was written for.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Optional, Union

from ropewalk import _native

__all__ = ["active", "chosen", "off", "on", "reason"]

ENVIRONMENT = "ROPEWALK_ACCELERATE"

# Of a class with its own version of one of these, attributes are not what its `__dict__` says.
_HOOKS = ("__getattribute__", "__setattr__", "__delattr__")


class _Receiver(NamedTuple):
    """
    A class of Twisted's whose parsing can be replaced.
    """

    # The names of the class, and of its subclasses in Twisted that have nothing but a format.
    names: tuple[str, ...]
    # SHA-256 of the source text of its methods, in the order of their names.
    source: str
    # Attributes that the native code reads and writes in the protocol's `__dict__`, or reads from
    # the class.
    state: tuple[str, ...]
    # Private methods and constants for which the native code stands in.
    machinery: tuple[str, ...]
    # The attribute with the bytes that are not parsed yet, and its value in the class.
    rest: Optional[tuple[str, Optional[bytes]]]
    # Classes that are left to Twisted's code, as it is faster for them. Native code uses the
    # protocol's `__dict__`. Once that exists, CPython 3.11 accesses the attributes of the protocol
    # in a slower way: 32,000 instructions more for a request to `HTTPChannel`, a sixth.
    left_out: tuple[str, ...]
    # Makes the native method out of Twisted's, a function that judges classes, and the rest.
    build: Callable[..., Callable[[Any, Any], Any]]


def _lines(original: Any, judge: Any, rest: Any, machinery: tuple[str, ...]) -> Callable[[Any, Any], Any]:
    receive = _native.Lines(original, judge, rest).receive
    LineLoop = _native.LineLoop

    def dataReceived(self: Any, data: bytes) -> Any:
        lines = receive(self, data)
        if type(lines) is not LineLoop:
            return lines
        why = None
        try:
            for line in lines:
                why = self.lineReceived(line)
                if why:
                    return why
        finally:
            goes_on = lines.finish()
        if goes_on is None:
            return None
        return original(self, b"") if goes_on else why

    return dataReceived


def _function(receive: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """
    Make a function of Python, which becomes a method of its class.
    """

    def dataReceived(self: Any, data: bytes) -> Any:
        return receive(self, data)

    return dataReceived


def _prefixed(original: Any, judge: Any, rest: Any, machinery: tuple[str, ...]) -> Callable[[Any, Any], Any]:
    return _function(_native.Prefixed(original, judge).receive)


def _netstrings(original: Any, judge: Any, rest: Any, machinery: tuple[str, ...]) -> Callable[[Any, Any], Any]:
    from twisted.protocols.basic import IncompleteNetstring, NetstringParseError

    types = (io.BytesIO, IncompleteNetstring, NetstringParseError)
    return _function(_native.Netstrings(original, judge, rest, machinery, types).receive)


_RECEIVERS = (
    _Receiver(
        names=("LineReceiver",),
        source="d9fcd98015660e2f04893ead9add2c369ff8e32197dbb477d5fca0bdd678515a",
        state=("_buffer", "_busyReceiving", "line_mode", "paused", "delimiter", "MAX_LENGTH", "transport"),
        machinery=(),
        rest=("_buffer", b""),
        left_out=("twisted.web.http.HTTPChannel",),
        build=_lines,
    ),
    _Receiver(
        names=("IntNStringReceiver", "Int8StringReceiver", "Int16StringReceiver", "Int32StringReceiver"),
        source="6b0578c73b30e8e8a9541d1dcea5a51ea3888a2af2d73af4150f8bde90dc3861",
        state=("_unprocessed", "_compatibilityOffset", "paused", "MAX_LENGTH", "structFormat", "prefixLength"),
        machinery=("recvd",),
        rest=None,
        left_out=(),
        build=_prefixed,
    ),
    _Receiver(
        names=("NetstringReceiver",),
        source="d061b713184184a493ad3fa496391840e0b96e54b223ebb3ba241002eb087326",
        state=(
            "_remainingData",
            "_state",
            "_payload",
            "_currentPayloadSize",
            "_expectedPayloadSize",
            "MAX_LENGTH",
        ),
        machinery=(
            "_LENGTH",
            "_LENGTH_PREFIX",
            "_PARSING_LENGTH",
            "_PARSING_PAYLOAD",
            "_checkForTrailingComma",
            "_checkPartialLengthSpecification",
            "_checkStringSize",
            "_consumeData",
            "_consumeLength",
            "_consumePayload",
            "_extractLength",
            "_extractPayload",
            "_maxLengthSize",
            "_payloadComplete",
            "_prepareForPayloadConsumption",
            "_processLength",
            "_processPayload",
        ),
        rest=("_remainingData", None),
        left_out=(),
        build=_netstrings,
    ),
)


class _Replaced(NamedTuple):
    """
    A class whose parsing is replaced, with all that undoes it.
    """

    receiver: _Receiver
    # The attributes that were replaced; `None` for one that the class did not have.
    attributes: dict[str, Any]
    # `None` if there is no attribute for it.
    rest: Any


_replaced: dict[type, _Replaced] = {}


def chosen(accelerate: Union[None, bool, str, Iterable[str]]) -> frozenset[str]:
    """
    List the receivers that an argument of L{ropewalk.install} names.

    @param accelerate: names of classes, as a collection or separated by commas; C{True} or C{"all"}
        for all that there are. L{None} leaves the choice to the environment variable
        C{ROPEWALK_ACCELERATE}.

    @return: the names of the classes. They are those that L{active} lists.

    @raise ValueError: if a name is unknown.
    """
    if accelerate is None:
        accelerate = os.environ.get(ENVIRONMENT, "")
    if isinstance(accelerate, str):
        accelerate = True if accelerate == "all" else [name for name in accelerate.split(",") if name]
    if isinstance(accelerate, bool):
        return frozenset(receiver.names[0] for receiver in _RECEIVERS) if accelerate else frozenset()
    known = {name: receiver.names[0] for receiver in _RECEIVERS for name in receiver.names}
    names = list(accelerate)
    unknown = sorted(set(names) - known.keys())
    if unknown:
        raise ValueError(f"no native receiver has the name {', '.join(unknown)}: there are {', '.join(known)}")
    return frozenset(known[name] for name in names)


def on(accelerate: Union[None, bool, str, Iterable[str]] = True) -> None:
    """
    Replace the parsing of receivers, for existing protocols too. Receivers that were replaced
    before stay replaced.

    @param accelerate: see L{chosen}.

    @raise ValueError: if a name is unknown.
    """
    names = chosen(accelerate)
    if not names:
        return
    from twisted.protocols import basic

    for receiver in _RECEIVERS:
        cls = getattr(basic, receiver.names[0])
        if receiver.names[0] not in names or cls in _replaced:
            continue
        if _source(cls) == receiver.source:
            _replace(cls, receiver)
        else:
            warnings.warn(
                f"{receiver.names[0]} is not accelerated: its source text is not that of Twisted 24.7 to 26.10",
                RuntimeWarning,
                stacklevel=2,
            )


def off() -> None:
    """
    Undo L{on}: Twisted's own code parses again.

    @raise RuntimeError: inside of a callback of a receiver that has more bytes to parse.
    """
    if any(replaced.rest is not None and replaced.rest.busy for replaced in _replaced.values()):
        raise RuntimeError("a receiver has more bytes to parse")
    while _replaced:
        cls, replaced = _replaced.popitem()
        for name, value in replaced.attributes.items():
            if value is None:
                delattr(cls, name)
            else:
                setattr(cls, name, value)


def active() -> frozenset[str]:
    """
    List the classes whose parsing is native now.
    """
    return frozenset(replaced.receiver.names[0] for replaced in _replaced.values())


def reason(cls: type) -> Optional[str]:
    """
    Tell why Twisted's own code parses for a protocol's class. L{None} if native code does, be it
    that the class has a C{dataReceived} of its own that calls Twisted's.
    """
    for base, replaced in _replaced.items():
        if issubclass(cls, base):
            return _reason(cls, base, replaced)
    return "none of its base classes is accelerated"


def _reason(cls: type, base: type, replaced: _Replaced) -> Optional[str]:
    """
    Compare a class with Twisted's class that it is derived from.
    """
    if not issubclass(cls, base):
        return f"it is not derived from {base.__name__}"
    for each in cls.__mro__:
        if f"{each.__module__}.{each.__qualname__}" in replaced.receiver.left_out:
            return f"Twisted's own code is faster for {each.__name__}"
    for name in _HOOKS:
        if getattr(cls, name) is not getattr(object, name):
            return f"it overrides {name}"
    for name in replaced.receiver.machinery:
        if inspect.getattr_static(cls, name) is not vars(base)[name]:
            return f"it overrides {name}"
    for name in replaced.receiver.state:
        value = inspect.getattr_static(cls, name, None)
        if value is not replaced.rest and (hasattr(type(value), "__get__") or hasattr(type(value), "__set__")):
            return f"its {name} is a {type(value).__name__}"
    if replaced.rest is not None:
        name = replaced.receiver.rest[0]  # type: ignore[index]
        if inspect.getattr_static(cls, name) is not replaced.rest:
            return f"it overrides {name}"
    return None


def _replace(cls: Any, receiver: _Receiver) -> None:
    """
    Put native parsing into a class.
    """
    replaced: _Replaced
    original = vars(cls)["dataReceived"]
    rest = _native.Rest(*receiver.rest) if receiver.rest is not None else None
    parse = receiver.build(original, lambda kind: _reason(kind, cls, replaced) is None, rest, receiver.machinery)
    attributes: dict[str, Any] = {"dataReceived": functools.update_wrapper(parse, original)}
    if receiver.rest is not None:
        attributes[receiver.rest[0]] = rest
    replaced = _Replaced(receiver, {name: vars(cls).get(name) for name in attributes}, rest)
    _replaced[cls] = replaced
    for name, value in attributes.items():
        setattr(cls, name, value)


def _source(cls: type) -> Optional[str]:
    """
    Take the fingerprint of the methods that a class has at this moment. L{None} if their source
    text is not there.
    """
    methods = sorted((name, value) for name, value in vars(cls).items() if inspect.isfunction(value))
    try:
        text = "".join(inspect.getsource(method.__code__) for _, method in methods)
    except (OSError, TypeError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()
