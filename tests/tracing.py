"""Traces of Pyro models, whose nodes the type checker does not know."""

from typing import Any

from pyro import poutine


def trace_of(model: Any, *args: Any) -> Any:
    """The trace of one call, with every site's log density computed."""
    trace = poutine.trace(model).get_trace(*args)
    trace.compute_log_prob()
    return trace
