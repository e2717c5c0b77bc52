"""What is asked of a Jacobian or of a whole solve: spectra, diagonals, products, pictures."""

from ._analysis.curvature import gauss_newton_product as gauss_newton_product
from ._analysis.curvature import hessian_product as hessian_product
from ._analysis.diagnostics import EffectiveDimension as EffectiveDimension
from ._analysis.diagnostics import Eigenpair as Eigenpair
from ._analysis.diagnostics import Estimate as Estimate
from ._analysis.diagnostics import Spectrum as Spectrum
from ._analysis.diagnostics import column_norms_squared as column_norms_squared
from ._analysis.diagnostics import effective_dimension as effective_dimension
from ._analysis.diagnostics import gram_diagonal as gram_diagonal
from ._analysis.diagnostics import largest_eigenvalue as largest_eigenvalue
from ._analysis.diagnostics import spectrum as spectrum
from ._analysis.plot import plot_history as plot_history
