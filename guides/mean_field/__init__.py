"""Factorised normal guides and their ELBOs."""

from bayesnn.guides.mean_field.elbo import MeanFieldELBO as MeanFieldELBO
from bayesnn.guides.mean_field.flipout import FlipoutELBO as FlipoutELBO
from bayesnn.guides.mean_field.guide import MeanField as MeanField
from bayesnn.guides.mean_field.local_reparameterisation import (
    LocalReparameterisationELBO as LocalReparameterisationELBO,
)
from bayesnn.guides.mean_field.shared_variance import SharedVariance as SharedVariance
from bayesnn.guides.mean_field.shared_variance import per_layer as per_layer
from bayesnn.guides.mean_field.shared_variance import per_network as per_network
from bayesnn.guides.mean_field.shared_variance import per_tensor as per_tensor
