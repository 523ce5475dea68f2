"""`to_arviz`: a posterior and its model to ArviZ."""

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

from bayesnn.arviz.collect import to_groups
from bayesnn.arviz.convert import from_groups

P = ParamSpec("P")


def _with_arguments_of(function: Callable[P, Any]) -> Callable[[Callable[..., Any]], Callable[P, Any]]:
    """A decorator: the arguments are those of `function`, for type checkers and for `help`."""

    def decorate(decorated: Callable[..., Any]) -> Callable[P, Any]:
        signature = inspect.signature(function).replace(return_annotation=Any)
        decorated.__signature__ = signature  # type: ignore[attr-defined]
        return decorated

    return decorate


@_with_arguments_of(to_groups)
def to_arviz(*args: Any, **options: Any) -> Any:  # noqa: D417
    """Everything that ArviZ diagnoses: an `InferenceData` with ArviZ 0.x, an `xarray.DataTree`
    with ArviZ 1.x.

    Works with any Pyro model, of one network, of several with other terms, or of none: each draw
    is one call of the conditioned model. Both containers have `to_netcdf`, and ArviZ 1.x reads
    what 0.x wrote.

    Groups, all with axes [chain, draw, ...] but the last three:

    - posterior: every latent and deterministic site of at most `limit` numbers. Of larger ones the
      Euclidean norm (`<site>_norm`), and then also `log_joint`. `f_probe` and the `functions`. The
      weights of a network have many equivalent values: judge the convergence of chains by
      functions of them.
    - log_likelihood: log p(y_i | w) in nats for each data point, never scaled by the model's size;
      for `arviz.loo`. A `pyro.factor` in the plates of an observed site is a variable of its own:
      its terms belong to examples too, as the log survival of censored times. `arviz.loo` then
      asks for one variable: add them up, point by point.
    - posterior_predictive: new data of the same shape. With `prior`: prior and prior_predictive.
    - sample_stats: `lp` = log p(w, y) in nats with the model's own scaling; `log_q` = log q(w) of
      a guide (see `khat`); `diverging` of MCMC, whose mean acceptance rate after warm-up is the
      attribute `acceptance_rate`. There is no `energy` and no tree depth: Pyro's kernels keep
      neither the momenta nor the trees of their trajectories, so that `arviz.bfmi` and
      `plot_energy` cannot be had.
    - log_prior: log p of each site in nats; for `arviz.psens`.
    - observed_data; constant_data: the tensors that the model was called with, up to a million
      numbers each; metadata: the random blocks, their shapes, and whether they are variables of
      posterior.

    Attributes of every group say what made it: `method`, `random` (the blocks), versions;
    `kl_weight`, which is not 1 for a tempered posterior, for guides that our ELBOs trained and for
    models that state it; `temperature` for draws of `sghmc`. `lp`, and so `khat`, have the weight
    that the model states, if it does, and are otherwise untempered.

    An axis that is a plate has its name. Entries of a target that a mask hides are no data: they
    are in none of log_likelihood, observed_data and the predictive groups, where the others are
    one axis `<site>_seen`, labelled by their place in the flattened target. Factors outside the
    plates of data count in `lp` alone, and are named in the attribute `only_in_lp`. A target whose
    event is one number has no axis for it.

    Args:
        posterior: an `MCMC` that has run, with its chains; a guide, which is one chain; draws
            {site: [draw, *event]}; or a list of these, one chain each: restarts, or the members of
            an ensemble.
        *args: the arguments of one call of the model with all data and targets, (x, y) for a
            `BNN`.
        model: what the posterior is about: a model of `bayesnn.models` or any Pyro model. By
            default the posterior's own, without Pyro's handlers around it: `model` of a guide or
            of the kernel of MCMC, of a list that of the first. A posterior that does not know its
            model needs it: a dict of draws, a plain function.
        draws: how many of each chain. None: all that are held, 1,000 of a guide, and 1 of a guide
            that is a point.
        probe: inputs for the outputs f(probe) of a model of `bayesnn.models`,
            [chain, draw, probe, out]; they are kept as `x_probe`.
        functions: {variable: function of {site: value} of one draw}: further variables of
            posterior.
        limit: the most numbers in one draw of a variable of posterior.
        predictive: whether to draw posterior_predictive.
        prior: how many draws from the prior; 0 for none.
        group_by_chain: a dict holds [chain, draw, *event], as
            `MCMC.get_samples(group_by_chain=True)`.
        keywords: keyword arguments of the call of the model.
        dims: {variable: names of its axes after chain and draw}, in place of those of plates.
        coords: {axis: labels}.
        chunk: examples in one pass of a model of `bayesnn.models`, so that memory stays bounded.
        progress: show a bar over the draws.

    Raises:
        ImportError: ArviZ is not installed.
        TypeError: nothing that holds a posterior; one that does not know its model, and none is
            given; a model in another place.
        ValueError: a model called without targets or with a subsampled plate; draws of another
            model, or of a guide made without targets; a model that has another prior or likelihood
            than the posterior's own; chains of different length; a mask that differs between
            draws; a name in `dims` or `coords` that is no variable or axis; a bad option.
        MemoryError: the pointwise log likelihood needs more memory than there is.

    >>> import torch
    >>> from torch import nn
    >>> from pyro.infer.autoguide import AutoNormal
    >>> from bayesnn import BNN, likelihoods, priors, subset
    >>> net = nn.Linear(3, 1)
    >>> model = BNN(net, subset.everything(net), priors.normal(), likelihoods.normal(0.1))
    >>> tree = to_arviz(AutoNormal(model), torch.zeros(8, 3), torch.zeros(8, 1), draws=20)
    >>> tree["log_likelihood"]["y"].shape, tree["posterior"]["weight"].shape
    ((1, 20, 8), (1, 20, 1, 3))
    """
    return from_groups(to_groups(*args, **options))
