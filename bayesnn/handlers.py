"""Two small Pyro handlers: names of a network's sites inside a larger model, and the plates around them."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pyro.poutine.messenger import Messenger


class _Prefix(Messenger):
    """Puts `prefix` before the names of the sites inside. Pyro's own scope writes "/", which ArviZ 1.x refuses."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        msg["name"] = self.prefix + msg["name"]


def prefix_of(name: str) -> str:
    """What stands before the site names of a model called `name`."""
    return name + "." if name else ""


def prefixed(name: str) -> AbstractContextManager[Any]:
    """Inside, sites of a prior or likelihood get the model's prefix."""
    return _Prefix(prefix_of(name)) if name else nullcontext()


class SurroundingPlates(Messenger):
    """Notes the plates that are open around the sites inside.

    Attributes:
        depth: batch axes that those plates make on the left of an event: -dim of the outermost.
        innermost: name of the plate at dim -1, where a network's data plate belongs; empty for none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.innermost = ""

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.vectorized:
                self.depth = max(self.depth, -frame.dim)
                if frame.dim == -1:
                    self.innermost = frame.name
