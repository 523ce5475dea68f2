"""Where in a network the interpreter is, for messages."""

import sys
from pathlib import Path
from types import FrameType

import torch
from torch import nn

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
# below it lies the caller of the network
_CALL = str(Path(__file__).parents[1] / "functional" / "call.py")


def place() -> str:
    """The innermost module that is being called, by its name in the network, and the line of the
    user's code.

    It looks at the frames of the calls, so that nothing has to be noted while all goes well.
    """
    modules: list[nn.Module] = []
    line = ""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name == _CALL:
            break
        inside = name.startswith((_TORCH, _HERE))
        holder = frame.f_locals.get("self")
        if isinstance(holder, nn.Module) and type(holder).__module__ != "bayesnn.functional.call":
            if not modules or modules[-1] is not holder:
                modules.append(holder)
            if not line and not inside:
                line = f", {Path(name).name}:{frame.f_lineno}"
        elif not line and not inside and not modules:
            line = f", {Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    if not modules:
        return line.lstrip(", ") or "an unknown place"
    innermost = modules[0]
    names: dict[int, str] = {}
    for module in modules:  # the outermost that holds it: the whole network
        names = {id(child): path for path, child in module.named_modules()} if _holds(module, innermost) else names
    path = names.get(id(innermost), "")
    kind = type(innermost).__name__
    return (f"{path!r} ({kind})" if path else kind) + line


def _holds(module: nn.Module, inner: nn.Module) -> bool:
    return any(child is inner for child in module.modules())
