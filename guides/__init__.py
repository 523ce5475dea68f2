"""Pyro guides and their ELBOs, one approximation a file."""

# The folder lies at the repository's top level: imported as `guides` it would exist twice.
if __name__ != "bayesnn.guides":
    raise ImportError(f"import bayesnn.guides, not {__name__}: the folder guides/ ships as bayesnn.guides")

from bayesnn.guides.amortised_head import AmortisedHead as AmortisedHead
from bayesnn.guides.expected_log_likelihood import expected_log_likelihood as expected_log_likelihood
from bayesnn.guides.faster_variances import faster_variances as faster_variances
from bayesnn.guides.flipout import FlipoutELBO as FlipoutELBO
from bayesnn.guides.laplace import Conditional as Conditional
from bayesnn.guides.laplace import Diagonal as Diagonal
from bayesnn.guides.laplace import Full as Full
from bayesnn.guides.laplace import Hessian as Hessian
from bayesnn.guides.laplace import Kronecker as Kronecker
from bayesnn.guides.laplace import Laplace as Laplace
from bayesnn.guides.laplace import LowRank as LowRank
from bayesnn.guides.laplace import ModeDistance as ModeDistance
from bayesnn.guides.laplace import MonteCarlo as MonteCarlo
from bayesnn.guides.laplace import distance_to_mode as distance_to_mode
from bayesnn.guides.laplace import empirical as empirical
from bayesnn.guides.laplace import exact as exact
from bayesnn.guides.laplace import train_online as train_online
from bayesnn.guides.last_layer import LastLayer as LastLayer
from bayesnn.guides.last_layer import LastLayerMeanField as LastLayerMeanField
from bayesnn.guides.last_layer_elbo import LastLayerELBO as LastLayerELBO
from bayesnn.guides.last_layer_evidence import LastLayerEvidence as LastLayerEvidence
from bayesnn.guides.last_layer_expectations import jensen_bound as jensen_bound
from bayesnn.guides.last_layer_expectations import second_order as second_order
from bayesnn.guides.last_layer_posterior import LastLayerPosterior as LastLayerPosterior
from bayesnn.guides.local_reparameterisation import LocalReparameterisationELBO as LocalReparameterisationELBO
from bayesnn.guides.logit_expectations import LogitDraws as LogitDraws
from bayesnn.guides.logit_expectations import probit_score as probit_score
from bayesnn.guides.mean_field import MeanField as MeanField
from bayesnn.guides.mean_field_elbo import MeanFieldELBO as MeanFieldELBO
from bayesnn.guides.moment_propagation_elbo import MomentPropagationELBO as MomentPropagationELBO
from bayesnn.guides.multiplicative_noise import MultiplicativeNoise as MultiplicativeNoise
from bayesnn.guides.noise_families import PerInput as PerInput
from bayesnn.guides.noise_families import PerInputVariance as PerInputVariance
from bayesnn.guides.noise_families import PerWeight as PerWeight
from bayesnn.guides.rank_one import RankOneELBO as RankOneELBO
from bayesnn.guides.rank_one import RankOneGuide as RankOneGuide
from bayesnn.guides.recast import CorrectedDraws as CorrectedDraws
from bayesnn.guides.recast import RECaSTGuide as RECaSTGuide
from bayesnn.guides.recast_nuts import recast_nuts as recast_nuts
from bayesnn.guides.shared_variance import SharedVariance as SharedVariance
from bayesnn.guides.swag import SWAG as SWAG
from bayesnn.guides.variance_groups import per_layer as per_layer
from bayesnn.guides.variance_groups import per_network as per_network
from bayesnn.guides.variance_groups import per_tensor as per_tensor
from bayesnn.guides.variational_laplace import VariationalLaplaceELBO as VariationalLaplaceELBO
from bayesnn.guides.variational_laplace_fisher import EmpiricalFisher as EmpiricalFisher
from bayesnn.guides.variational_laplace_fisher import ExactFisher as ExactFisher
from bayesnn.guides.variational_laplace_fisher import FisherProbes as FisherProbes
from bayesnn.guides.variational_laplace_fisher import SampledLabels as SampledLabels
from bayesnn.guides.variational_laplace_profiled import ProfiledVariances as ProfiledVariances
from bayesnn.guides.variational_laplace_variances import fit_variances as fit_variances
