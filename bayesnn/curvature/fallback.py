"""Where derivatives by layers are not to be had: what says so, and the warning
about what stands in.
"""

import warnings
import weakref

from torch import nn

_WARNED: "weakref.WeakKeyDictionary[nn.Module, set[str]]" = weakref.WeakKeyDictionary()


class SlowFallback(UserWarning):
    """Derivatives are exact, but had by a slower way: the message names the layer, the reason and
    the cost.

    To be silent about it: `warnings.filterwarnings("ignore", category=SlowFallback)`.
    """


class NoRule(ValueError):
    """A network whose derivatives cannot be had layer by layer.

    Attributes:
        name: of the first parameter for which that is so.
        reason: a clause, "it ...".
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name!r}: {reason}")
        self.name, self.reason = name, reason


def warn_slow(net: nn.Module | None, message: str) -> None:
    """Warn of a fallback, once for each network and message."""
    if net is not None:
        told = _WARNED.setdefault(net, set())
        if message in told:
            return
        told.add(message)
    warnings.warn(message, SlowFallback, stacklevel=3)
