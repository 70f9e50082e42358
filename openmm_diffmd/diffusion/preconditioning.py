"""EDM preconditioning and loss for residuals of unit variance."""

from torch import Tensor


def preconditioning(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    Scalings that keep the network's input, output and target at unit variance.

    D(u; sigma) = c_skip u + c_out F(c_in u; c_noise).

    Parameters
    ----------
    sigma : Tensor
        Noise levels, positive.

    Returns
    -------
    c_skip, c_out, c_in, c_noise : Tensor
        Of the shape of `sigma`.

    Notes
    -----
    Karras et al., arXiv 2206.00364, table 1, with sigma_data = 1.
    """
    variance = 1.0 + sigma * sigma
    c_in = variance.rsqrt()
    return 1.0 / variance, sigma * c_in, c_in, 0.25 * sigma.log()


def denoising_loss_weight(sigma: Tensor) -> Tensor:
    """
    Weight of the squared error of D that is uniform in the network's output.

    Parameters
    ----------
    sigma : Tensor
        Noise levels, positive.

    Returns
    -------
    Tensor
        (sigma^2 + 1)/sigma^2.

    Notes
    -----
    Karras et al., arXiv 2206.00364, table 1, with sigma_data = 1.
    """
    return (1.0 + sigma * sigma) / (sigma * sigma)


def score(denoised: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
    """
    Score of the noised distribution from the denoised residual.

    Parameters
    ----------
    denoised, noisy : Tensor
        D(u; sigma) and u.
    sigma : Tensor
        Noise levels, broadcastable to `noisy`.

    Returns
    -------
    Tensor
        (D - u)/sigma^2.

    Notes
    -----
    Karras et al., arXiv 2206.00364, eq. 3.
    """
    return (denoised - noisy) / (sigma * sigma)
