"""Denoising diffusion on unit-variance residuals: no network, no molecules."""
