"""A posterior and its model to groups of plain arrays, draw by draw."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from bayesnn.arviz.call import Call, Evaluation
from bayesnn.arviz.constants import argument_names, constants
from bayesnn.arviz.convert import Groups, check_names
from bayesnn.arviz.posterior import Chain, acceptance_of, chains_of, method_of, tempering_of
from bayesnn.arviz.quantities import Function, Quantities, array
from bayesnn.functional import Inputs, memory, progress_bar
from bayesnn.models import is_model
from bayesnn.predict.ownership import model_for

CONSTANT_LIMIT = 1_000_000
"""The most numbers that an input may have to be kept in constant_data."""


@torch.no_grad()
def to_groups(
    posterior: Any,
    *args: Any,
    model: Callable[..., Any] | None = None,
    draws: int | None = None,
    probe: "Inputs | None" = None,
    functions: Mapping[str, Function] | None = None,
    limit: int = 10_000,
    predictive: bool = True,
    prior: int = 0,
    group_by_chain: bool = False,
    keywords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    chunk: int = 1000,
    progress: bool = True,
) -> Groups:
    """What `to_arviz` makes, with the same arguments, as plain arrays {group:
    {variable: array}}; needs no ArviZ.
    """
    model = model_for(posterior, model, "to_arviz", *args)
    if prior < 0:
        raise ValueError(f"to_arviz: prior is the number of draws from it, 0 or more, not {prior}")
    keywords = keywords or {}
    call = Call(model, args, keywords, chunk)
    quantities = Quantities(call, limit, probe, functions or {}, chunk)
    chains = chains_of(posterior, call, draws, group_by_chain)
    count = len(chains) * chains[0].length + prior
    memory.require(
        count * call.elements * (12 if predictive else 4),
        torch.device("cpu"),
        f"to_arviz: the log likelihood of {call.elements:,} data at {count:,} draws",
        "give fewer draws (draws=), fewer data, or predictive=False",
    )
    table = _Table()
    with progress_bar(desc="to_arviz", unit="draw", show=progress, total=count) as bar:
        result = _fill(table, chains, quantities, predictive, bar)
        _fill_prior(table, prior, quantities, bar)
    inputs = dict(zip(argument_names(model, len(args)), args, strict=True))
    kept, large = _inputs({**inputs, **keywords}, probe, result.observed, table.names)
    blocks = {name: tuple(site.shape) for name, site in call.latent.items()}
    attrs = {
        "inference_library": "bayesnn",
        "inference_library_version": _version(),
        "pyro_version": pyro.__version__,
        "torch_version": str(torch.__version__),
        "method": method_of(chains, posterior),
        **tempering_of(chains),
        **acceptance_of(chains),
        "random": ", ".join(f"{name} {list(shape)}" for name, shape in blocks.items()),
        "only_in_lp": ", ".join(call.only_in_lp),
        "left_out": ", ".join([name for name in blocks if name not in table.arrays["posterior"]] + large),
    }
    arrays = {
        **table.arrays,
        "observed_data": dict(_arrays(result.observed, result.seen)),
        "constant_data": kept,
        "metadata": _metadata(blocks, table.arrays["posterior"]),
    }
    of_seen = {
        f"{name}_seen": array(seen.flatten().nonzero()[:, 0]) for name, seen in result.seen.items() if not seen.all()
    }
    found = {name: axes for name, axes in _dims(quantities, kept).items() if f"{name}_seen" not in of_seen}
    found |= {axis.removesuffix("_seen"): (axis,) for axis in of_seen}
    groups = Groups(
        arrays, {**found, **(dims or {})}, {"random_site": list(blocks), **of_seen, **(coords or {})}, attrs
    )
    check_names(groups, dims or {}, coords or {})
    return groups


_METADATA = ("random_shape", "random_numbers", "random_in_posterior")


class _Table:
    """Arrays [chain, draw, ...] that are filled draw by draw."""

    def __init__(self) -> None:
        self.arrays: dict[str, dict[str, np.ndarray]] = {}

    def put(
        self, group: str, values: Iterable[tuple[str, np.ndarray]], place: tuple[int, int], shape: tuple[int, int]
    ) -> None:
        held = self.arrays.setdefault(group, {})
        for name, value in values:
            if name not in held:
                held[name] = np.empty(shape + value.shape, value.dtype)
            elif held[name].shape[2:] != value.shape:
                raise ValueError(
                    f"to_arviz: {name!r} has shape {value.shape} in one draw and {held[name].shape[2:]} in another"
                )
            held[name][place] = value

    @property
    def names(self) -> set[str]:
        return {name for variables in self.arrays.values() for name in variables}


def _fill(table: _Table, chains: Sequence[Chain], quantities: Quantities, predictive: bool, bar: Any) -> Evaluation:
    """Every draw of every chain; returns the last, with the observed data."""
    shape = (len(chains), chains[0].length)
    result = Evaluation()
    for c, chain in enumerate(chains):
        for s, (values, log_q) in enumerate(chain.draws()):
            result = quantities.call.at(values, replicate=predictive)
            stats: dict[str, Any] = {"lp": result.log_joint}
            if log_q is not None:
                stats["log_q"] = log_q
            if chain.diverging is not None:
                stats["diverging"] = chain.diverging[s]
            place = (c, s)
            table.put("posterior", quantities.of(values, result, joint=True), place, shape)
            table.put("sample_stats", _scalars(stats), place, shape)
            table.put("log_likelihood", _arrays(result.log_likelihood, result.seen), place, shape)
            table.put("log_prior", _scalars(result.log_prior), place, shape)
            if predictive:
                table.put("posterior_predictive", _arrays(result.replicated, result.seen), place, shape)
            bar.update()
    return result


def _fill_prior(table: _Table, count: int, quantities: Quantities, bar: Any) -> None:
    for s in range(count):
        values = quantities.call.prior()
        result = quantities.call.at(values, replicate=True)
        table.put("prior", quantities.of(values, result, joint=False), (0, s), (1, count))
        table.put("prior_predictive", _arrays(result.replicated, result.seen), (0, s), (1, count))
        bar.update()


def _scalars(values: Mapping[str, Any]) -> Iterable[tuple[str, np.ndarray]]:
    return ((name, np.asarray(value)) for name, value in values.items())


def _arrays(values: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> Iterable[tuple[str, np.ndarray]]:
    """Without the entries that a mask hides, which are no data; what is left is
    one axis, then the event's.
    """
    return ((name, array(value if seen[name].all() else value[seen[name]])) for name, value in values.items())


def _inputs(
    named: Mapping[str, Any], probe: "Inputs | None", observed: Mapping[str, Tensor], taken: set[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arguments of the call and the probe, and the names of those that are too large."""
    found = constants(named, observed.values(), taken)
    if probe is not None:
        found |= constants({"x_probe": probe}, (), taken)
    kept = {name: value for name, value in found.items() if value.size <= CONSTANT_LIMIT}
    return kept, sorted(found.keys() - kept.keys())


def _metadata(blocks: Mapping[str, tuple[int, ...]], posterior: Mapping[str, object]) -> dict[str, np.ndarray]:
    """The random sites: shapes, how many numbers, and whether each is a variable of posterior."""
    return {
        "random_shape": np.array([str(shape) for shape in blocks.values()]),
        "random_numbers": np.array([torch.Size(shape).numel() for shape in blocks.values()]),
        "random_in_posterior": np.array([name in posterior for name in blocks]),
    }


def _version() -> str:
    try:
        return version("bayesnn")
    except PackageNotFoundError:  # a checkout that was not installed
        return "unknown"


def _dims(quantities: Quantities, inputs: Mapping[str, object]) -> dict[str, Sequence[str]]:
    """Names of axes: plates, and the examples of a network model's inputs."""
    call = quantities.call
    dims: dict[str, Sequence[str]] = {quantities.probe_name: ("probe", "out")}
    for sites in (call.latent, call.deterministic, call.observed, call.factors):
        dims.update({name: site.dims for name, site in sites.items()})
    dims.update(dict.fromkeys(_METADATA, ("random_site",)))
    if is_model(call.model):
        (target,) = call.observed.values()
        dims.update({name: ("probe",) if name.startswith("x_probe") else target.dims[:1] for name in inputs})
    return dims
