"""
The engine's log events, in Twisted's log.
"""

from __future__ import annotations

from twisted.logger import Logger, LogLevel

_log = Logger(namespace="ropewalk")


def emit(level: str, text: str) -> None:
    """
    Log one event of the engine.

    @param level: "error", "warn" or "info".
    @param text: the text, which may hold braces.
    """
    _log.emit(LogLevel.lookupByName(level), "{text}", text=text)
