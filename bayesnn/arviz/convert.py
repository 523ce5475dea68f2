"""Groups of plain arrays to ArviZ's container. NumPy and xarray only: neither
torch nor the rest of the package.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

SAMPLES = ("chain", "draw")


@dataclass(frozen=True, eq=False)
class Groups:
    """{group: {variable: array}}: what ArviZ holds, in no version's own form.

    Arrays are [chain, draw, ...]; those of a group whose name ends in "data" (observed_data,
    constant_data, metadata) have no such axes.

    Args:
        arrays: {group: {variable: array}}. A "/" in a name becomes ".", since ArviZ 1.x reads it
            as a path.
        dims: {variable: names of its axes after chain and draw}, from the left; "" or nothing = a
            name of its own.
        coords: {axis name: labels}; 0, 1, ... where nothing is given.
        attrs: what the groups say of their origin; text and numbers.
    """

    arrays: Mapping[str, Mapping[str, np.ndarray]]
    dims: Mapping[str, Sequence[str]] = field(default_factory=dict)
    coords: Mapping[str, Sequence[Any] | np.ndarray] = field(default_factory=dict)
    attrs: Mapping[str, str | int | float] = field(default_factory=dict)


def from_groups(groups: Groups) -> Any:
    """`arviz.InferenceData` where ArviZ 0.x is installed, `xarray.DataTree` with 1.x; both have
    `to_netcdf`.

    Raises:
        ImportError: ArviZ is not installed.
        ValueError: an array without chain and draw axes, groups with different numbers of them,
            axes or labels of different length under one name, two variables of one name.

    >>> import numpy as np
    >>> tree = from_groups(Groups({"posterior": {"mu": np.zeros((2, 50))}, "observed_data": {"y": np.zeros(8)}}))
    >>> tree["posterior"]["mu"].sizes["draw"]
    50
    """
    try:
        import arviz
    except ImportError as error:
        raise ImportError(
            f"to_arviz: ArviZ cannot be imported ({error}). Repair: pip install 'bayesnn[all]'; without ArviZ, "
            "to_groups(...) gives the same as plain arrays"
        ) from error
    if int(arviz.__version__.split(".")[0]) == 0:
        return _inference_data(groups)
    return _data_tree(groups)


def _inference_data(groups: Groups) -> Any:
    """ArviZ 0.x. Its `from_dict` drops groups that it does not know; whole datasets are kept."""
    import arviz

    return arviz.InferenceData(attrs=dict(groups.attrs), **_datasets(groups))


def _data_tree(groups: Groups) -> Any:
    """ArviZ 1.x, whose plots read the sample dimensions from the attributes."""
    import xarray

    datasets = _datasets(groups)
    for dataset in datasets.values():
        if set(SAMPLES) <= set(dataset.dims):
            dataset.attrs["sample_dims"] = list(SAMPLES)
    tree = xarray.DataTree.from_dict(datasets)
    tree.attrs = dict(groups.attrs)
    return tree


def _datasets(groups: Groups) -> dict[str, Any]:
    import xarray

    attrs = {"created_at": datetime.now(UTC).isoformat(), **groups.attrs}
    dims = {_clean(name): [_clean(axis) for axis in axes] for name, axes in groups.dims.items()}
    coords = {_clean(axis): np.asarray(labels) for axis, labels in groups.coords.items()}
    _check_samples(groups)
    datasets = {}
    for group, arrays in groups.arrays.items():
        variables: dict[str, tuple[list[str], np.ndarray]] = {}
        for name, values in arrays.items():
            if _clean(name) in variables:
                raise ValueError(f"to_arviz: two variables of the group {group!r} are called {_clean(name)!r}")
            axes = _axes(_clean(name), np.asarray(values), dims.get(_clean(name), ()), has_samples(group))
            variables[_clean(name)] = axes, np.asarray(values)
        labels = dict(_labels(group, variables, coords))
        datasets[_clean(group)] = xarray.Dataset(variables, labels, attrs)
    return datasets


def has_samples(group: str) -> bool:
    """Whether a group's arrays begin with [chain, draw]."""
    return not group.endswith("data")


def _axes(name: str, values: np.ndarray, given: Sequence[str], samples: bool) -> list[str]:
    """Names of all axes. One that is the variable's own name would make it an index of itself."""
    rest = values.ndim - 2 * samples
    named = [given[i] if i < len(given) and given[i] else f"{name}_dim_{i}" for i in range(rest)]
    named = [axis + "_dim" if axis == name or axis in SAMPLES else axis for axis in named]
    return [*SAMPLES, *named] if samples else named


def _labels(
    group: str, variables: Mapping[str, tuple[list[str], np.ndarray]], coords: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """The labels of every axis of a group, after checks that give xarray's errors their cause."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, (axes, values) in variables.items():
        for axis, size in zip(axes, values.shape, strict=True):
            known, first = sizes.setdefault(axis, (size, name))
            if known != size:
                raise ValueError(
                    f"to_arviz: in the group {group!r} the axis {axis!r} has {known} entries in {first!r} but "
                    f"{size} in {name!r}; give them different names with dims="
                )
    for axis, (size, name) in sizes.items():
        if axis in variables:
            raise ValueError(
                f"to_arviz: in the group {group!r} {axis!r} is a variable and also an axis of {name!r}; rename one"
            )
        labels = coords.get(axis, np.arange(size))
        if len(labels) != size:
            raise ValueError(
                f"to_arviz: coords has {len(labels)} labels for {axis!r}, but {name!r} has {size} entries there"
            )
        yield axis, labels


def check_names(groups: Groups, dims: Mapping[str, object], coords: Mapping[str, object]) -> None:
    """Refuse axes and labels of variables and axes that no group has: a misspelt name would be
    ignored.

    Raises:
        ValueError: the name, and those that there are.
    """
    given = {_clean(name): axes for name, axes in groups.dims.items()}
    variables, axes = set(), set()
    for group, arrays in groups.arrays.items():
        for name, values in arrays.items():
            variables.add(_clean(name))
            axes.update(_axes(_clean(name), values, given.get(_clean(name), ()), has_samples(group)))
    axes = {_clean(axis) for axis in axes}
    for option, names, known in (("dims", dims, variables), ("coords", coords, axes)):
        if unknown := [name for name in names if _clean(name) not in known]:
            what = "variable" if option == "dims" else "axis"
            raise ValueError(
                f"to_arviz: {option} names {unknown[0]!r}, which is no {what}; there are {', '.join(sorted(known))}"
            )


def _check_samples(groups: Groups) -> None:
    seen: dict[bool, tuple[tuple[int, ...], str]] = {}
    for group, arrays in groups.arrays.items():
        for name, values in arrays.items() if has_samples(group) else ():
            shape = np.shape(values)
            if len(shape) < 2:
                raise ValueError(
                    f"to_arviz: {name!r} of the group {group!r} has shape {shape}, but [chain, draw, ...] is needed; "
                    "one chain is array[None]"
                )
            # The prior has draws of its own number.
            known, first = seen.setdefault("prior" in group and group != "log_prior", (shape[:2], name))
            if known != shape[:2]:
                raise ValueError(
                    f"to_arviz: {name!r} of the group {group!r} has [chain, draw] = {list(shape[:2])}, but {first!r} "
                    f"has {list(known)}"
                )


def _clean(name: str) -> str:
    return name.replace("/", ".")
