"""
The text of a delayed call.
"""

from __future__ import annotations

from typing import Any

from twisted.python import reflect


def describe(call: Any) -> str:
    """
    Describe a delayed call, as Twisted's own describe themselves.
    """
    parts = [f"<DelayedCall {id(call):#x} [{call.time - call.seconds()}s]"]
    parts.append(f" called={call.called} cancelled={call.cancelled}")
    if not call.cancelled:
        arguments = [reflect.safe_repr(value) for value in call.args]
        arguments += [f"{name}={reflect.safe_repr(value)}" for name, value in call.kw.items()]
        parts.append(f" {_name(call.func)}({', '.join(arguments)})")
    if call.creator is not None:
        parts.append("\n\ntraceback at creation: \n\n" + "    ".join(call.creator))
    return "".join(parts) + ">"


def _name(function: Any) -> str:
    for attribute in ("__qualname__", "__name__"):
        name = getattr(function, attribute, None)
        if isinstance(name, str):
            return name
    return reflect.safe_repr(function)
