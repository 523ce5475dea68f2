"""Variational Laplace: an ELBO expanded around the mean, without draws."""

from bayesnn.guides.variational_laplace.elbo import VariationalLaplaceELBO as VariationalLaplaceELBO
from bayesnn.guides.variational_laplace.profiled import ProfiledVariances as ProfiledVariances
from bayesnn.guides.variational_laplace.variances import fit_variances as fit_variances
