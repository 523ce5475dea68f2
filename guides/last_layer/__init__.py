"""Posteriors of a last layer that is trained together with its body."""

from bayesnn.guides.last_layer.elbo import LastLayerELBO as LastLayerELBO
from bayesnn.guides.last_layer.evidence import LastLayerEvidence as LastLayerEvidence
from bayesnn.guides.last_layer.guide import LastLayer as LastLayer
from bayesnn.guides.last_layer.guide import LastLayerMeanField as LastLayerMeanField
from bayesnn.guides.last_layer.posterior import LastLayerPosterior as LastLayerPosterior
