"""Statistics of whitened residuals that a few violent states do not rule."""

import torch
from torch import Tensor

OUTLIER_LIMIT = 5.0
"""Root mean square, over an atom's components, that a residual is shortened to."""
GAUSSIAN_MEAN_NORM = 0.9594
"""Mean of the root mean square of six unit Gaussian numbers,
sqrt(1/3) Gamma(7/2)/Gamma(3)."""


def limit_outliers(residual: Tensor) -> Tensor:
    """
    Shorten each atom's residual to `OUTLIER_LIMIT`.

    Parameters
    ----------
    residual : Tensor, shape (..., 2, 3)
        Residuals, of unit variance but for rare ones.

    Returns
    -------
    Tensor, shape (..., 2, 3)
        Residuals; those within the limit as they were.
    """
    size = residual.square().mean((-2, -1), keepdim=True).sqrt()
    return residual * (OUTLIER_LIMIT / size.clamp(min=OUTLIER_LIMIT))


def residual_covariance(residual: Tensor, cholesky: Tensor) -> Tensor:
    """
    Position-velocity covariance of errors, outliers shortened first.

    Parameters
    ----------
    residual : Tensor, shape (n, 2, 3)
        Errors whitened by `cholesky`.
    cholesky : Tensor, shape (2, 2)
        Cholesky factor of the covariance believed so far.

    Returns
    -------
    Tensor, shape (2, 2)
        Covariance of the errors before whitening, a component.
    """
    limited = limit_outliers(residual)
    found = torch.einsum("nax,nbx->ab", limited, limited) / (3 * len(limited))
    return cholesky @ found @ cholesky.T


def spread_loss(residual: Tensor, log_spread: Tensor) -> Tensor:
    """
    Loss whose minimum is the spread of Gaussian residuals.

    The norm stands in it, not the square as in the Gaussian likelihood: one state
    in ten thousand that is far off would else rule the rest.

    Parameters
    ----------
    residual : Tensor, shape (..., 2, 3)
        Residuals whitened without the spread.
    log_spread : Tensor, shape (...)
        Logarithm of the spread.

    Returns
    -------
    Tensor, shape (...)
        log s + |r|_rms/(0.9594 s).
    """
    size = (residual.square().mean((-2, -1)) + 1e-12).sqrt()
    return log_spread + size / GAUSSIAN_MEAN_NORM * (-log_spread).exp()
