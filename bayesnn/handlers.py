"""Small Pyro handlers: the names of a network's sites in a larger model, the plates around them,
their parameters.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK, effectful
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Size, Tensor, nn

from bayesnn.functional import alone


class _Prefix(Messenger):
    """Puts `prefix` before the names of the sites inside. Pyro's own scope
    writes "/", which ArviZ 1.x refuses.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        msg["name"] = self.prefix + msg["name"]

    def _pyro_param(self, msg: dict[str, Any]) -> None:
        msg["name"] = self.prefix + msg["name"]


def prefix_of(name: str) -> str:
    """The prefix of the site names of a model called `name`."""
    return name + "." if name else ""


def prefixed(name: str) -> AbstractContextManager[Any]:
    """A context in which the sites of a prior or likelihood get the model's prefix."""
    return _Prefix(prefix_of(name)) if name else nullcontext()


class SurroundingPlates(Messenger):
    """Notes the plates that are open around the sites inside.

    Attributes:
        sizes: {dim: entries} of those plates.
        innermost: name of the plate at dim -1, where a network's data plate belongs; empty for
            none.
        names: of the sites inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.innermost = ""
        self.names: set[str] = set()

    @property
    def depth(self) -> int:
        """Batch axes that the plates make on the left of an event: -dim of the outermost."""
        return -min(self.sizes, default=0)

    @property
    def lead(self) -> Size:
        """The axes that they make on the left of a data plate's: those of particles and draws."""
        return Size(self.sizes.get(dim, 1) for dim in range(-self.depth, -1))

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        self.names.add(msg["name"])
        self._pyro_post_plates(msg)

    def _pyro_post_plates(self, msg: dict[str, Any]) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.vectorized:
                self.sizes[frame.dim] = frame.size
                if frame.dim == -1:
                    self.innermost = frame.name


def plates_here() -> SurroundingPlates:
    """The plates that are open now, found without a site: by a message that
    only plates and this handler know.
    """
    with SurroundingPlates() as plates:
        effectful(lambda: None, type="plates")()
    return plates


def traced_before() -> Iterator[tuple[str, Any]]:
    """(name, node) of the sites so far, as the traces around have them."""
    for handler in _PYRO_STACK:
        if isinstance(handler, TraceMessenger):
            yield from handler.trace.nodes.items()


def param_site(name: str, parameter: nn.Parameter) -> Tensor:
    """The value of a module's parameter, as a "param" site of that name: what `SVI` trains, and
    handlers see.

    `pyro.param` keeps parameters in a global store by name, where two guides with the same names
    share them; a `PyroModule` does so too unless `module_local_params` is set. This announces a
    module's own parameter in either mode. ELBOs that are called as modules
    (`Trace_ELBO()(model, guide)`) find it among `parameters()` anyway.
    """
    # Pyro asks the value for its parameter; that note stays off the latter
    value: Any = parameter.view_as(parameter)
    value.unconstrained = lambda: parameter
    announce = effectful(lambda: value, type="param")
    with alone():  # the stack may be another thread's
        result: Tensor = announce(name=name)
    return result
