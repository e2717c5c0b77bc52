"""How well the parameters are known: covariances, standard errors, posteriors."""

from ._analysis.covariance.base import AbstractCovariance as AbstractCovariance
from ._analysis.covariance.estimate import covariance as covariance
from ._analysis.covariance.estimate import minimum_norm_covariance as minimum_norm_covariance
from ._analysis.covariance.estimate import posterior_covariance as posterior_covariance
from ._analysis.covariance.factored import FactoredCovariance as FactoredCovariance
from ._analysis.covariance.posterior import PosteriorCovariance as PosteriorCovariance
