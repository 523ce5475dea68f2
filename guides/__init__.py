"""Pyro guides and their ELBOs, one family of approximations a folder."""

# The folder lies at the repository's top level: imported as `guides` it would exist twice.
if __name__ != "bayesnn.guides":
    raise ImportError(f"import bayesnn.guides, not {__name__}: the folder guides/ ships as bayesnn.guides")

from bayesnn.guides.amortised_head import AmortisedHead as AmortisedHead
from bayesnn.guides.common.faster_variances import faster_variances as faster_variances
from bayesnn.guides.laplace import Diagonal as Diagonal
from bayesnn.guides.laplace import Full as Full
from bayesnn.guides.laplace import Hessian as Hessian
from bayesnn.guides.laplace import Kronecker as Kronecker
from bayesnn.guides.laplace import Laplace as Laplace
from bayesnn.guides.laplace import LowRank as LowRank
from bayesnn.guides.laplace import train_online as train_online
from bayesnn.guides.last_layer import LastLayer as LastLayer
from bayesnn.guides.last_layer import LastLayerELBO as LastLayerELBO
from bayesnn.guides.last_layer import LastLayerEvidence as LastLayerEvidence
from bayesnn.guides.last_layer import LastLayerMeanField as LastLayerMeanField
from bayesnn.guides.last_layer import LastLayerPosterior as LastLayerPosterior
from bayesnn.guides.mean_field import FlipoutELBO as FlipoutELBO
from bayesnn.guides.mean_field import LocalReparameterisationELBO as LocalReparameterisationELBO
from bayesnn.guides.mean_field import MeanField as MeanField
from bayesnn.guides.mean_field import MeanFieldELBO as MeanFieldELBO
from bayesnn.guides.mean_field import SharedVariance as SharedVariance
from bayesnn.guides.multiplicative_noise import MomentPropagationELBO as MomentPropagationELBO
from bayesnn.guides.multiplicative_noise import MultiplicativeNoise as MultiplicativeNoise
from bayesnn.guides.rank_one import RankOneELBO as RankOneELBO
from bayesnn.guides.rank_one import RankOneGuide as RankOneGuide
from bayesnn.guides.recast import RECaSTGuide as RECaSTGuide
from bayesnn.guides.recast import recast_nuts as recast_nuts
from bayesnn.guides.swag import SWAG as SWAG
from bayesnn.guides.variational_laplace import VariationalLaplaceELBO as VariationalLaplaceELBO
