"""Write a TorchScript model that calls the operators, and what Python finds."""

import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from openmm_diffmd.ops import (
    fourier_bessel_invariants,
    is_loaded,
    solid_harmonics,
    spherical_fourier_bessel,
)


class Energy(nn.Module):
    """A number made of all operators."""

    def forward(
        self, vectors: Tensor, velocities: Tensor, edge_index: Tensor
    ) -> Tensor:
        """
        Sum squares of features.

        Parameters
        ----------
        vectors : Tensor, shape (E, 3)
            Edges.
        velocities : Tensor, shape (N, 3)
            Velocities.
        edge_index : Tensor of int64, shape (2, E)
            Ends of the edges.

        Returns
        -------
        Tensor
            A scalar.
        """
        invariants, envelope = fourier_bessel_invariants(
            vectors, velocities, edge_index, 0.5, 2.0, 3, 5
        )
        features = spherical_fourier_bessel(vectors, 0.5, 6, 6)
        harmonics = solid_harmonics(vectors, 6)
        return (
            invariants.square().sum()
            + envelope.sum()
            + features.square().sum()
            + harmonics.square().sum()
        )


def main(folder: Path) -> None:
    """
    Write ``operators.pt`` and ``operators_expected.pt``.

    Parameters
    ----------
    folder : Path
        Where to.
    """
    # TorchScript is deprecated upstream.
    warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
    if not is_loaded():
        raise SystemExit("found no compiled operators, expected the installed library")
    generator = torch.Generator().manual_seed(1)
    vectors = 0.2 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    velocities = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    edge_index = torch.randint(8, (2, 40), generator=generator)
    vectors[0] = 0.0
    velocities[0] = 0.0
    inputs = [vectors.requires_grad_(), velocities.requires_grad_(), edge_index]
    scripted = torch.jit.script(Energy())
    energy = scripted(*inputs)
    gradients = torch.autograd.grad(energy, inputs[:2])
    scripted.save(str(folder / "operators.pt"))
    expected = nn.Module()
    values = [*inputs, energy, *gradients]
    names = ("vectors", "velocities", "edges", "energy", "of_vectors", "of_velocities")
    for name, value in zip(names, values, strict=True):
        expected.register_buffer(name, value.detach())
    torch.jit.script(expected).save(str(folder / "operators_expected.pt"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
