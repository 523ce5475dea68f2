"""Pyro guides and their ELBOs, one approximation a file."""

# The folder lies at the repository's top level: imported as `guides` it would exist twice.
if __name__ != "bayesnn.guides":
    raise ImportError(f"import bayesnn.guides, not {__name__}: the folder guides/ ships as bayesnn.guides")

from bayesnn.guides.laplace import Laplace as Laplace
from bayesnn.guides.mean_field import MeanField as MeanField
from bayesnn.guides.mean_field_elbo import MeanFieldELBO as MeanFieldELBO
