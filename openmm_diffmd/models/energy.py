"""A conservative energy of the same Transformer: what learned dynamics compete with."""

import json
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from openmm_diffmd.models.attention import EquivariantAttention, FeedForward
from openmm_diffmd.models.couplings import EdgeCouplings
from openmm_diffmd.models.geometry import Geometry, edges_of, pad_species
from openmm_diffmd.ops import solid_harmonics, spherical_fourier_bessel
from openmm_diffmd.outputs import written_whole


class EnergyModel(nn.Module):
    """
    Potential energy of molecules, a sum over atoms; its forces are its gradient.

    Layers, channels and edge features are those of `Encoder` without velocities: they
    stand still, so that the contractions with them vanish and the edges' geometry is
    computed once for all layers.

    Parameters
    ----------
    n_elements : int
        Number of elements.
    cutoff : float
        Range of the edges, nm.
    l_max, n_max : int
        Highest degree of features, radial functions.
    channels, n_heads, edge_channels, n_layers : int
        Sizes of the network.
    """

    element_energy: Tensor
    force_scale: Tensor
    radial_scale: Tensor

    def __init__(
        self,
        n_elements: int,
        cutoff: float = 0.5,
        l_max: int = 1,
        n_max: int = 8,
        channels: int = 48,
        n_heads: int = 4,
        edge_channels: int = 48,
        n_layers: int = 5,
    ) -> None:
        super().__init__()
        self.n_elements = n_elements
        self.cutoff = cutoff
        self.l_max = l_max
        self.n_max = n_max
        self.dim = (l_max + 1) ** 2
        self.elements = nn.Embedding(n_elements + 1, channels)
        self.couplings = EdgeCouplings(l_max)
        self.attention = nn.ModuleList(
            EquivariantAttention(l_max, channels, n_heads, n_max, edge_channels)
            for _ in range(n_layers)
        )
        self.update = nn.ModuleList(
            FeedForward(l_max, channels) for _ in range(n_layers)
        )
        self.readout = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, channels),
            nn.SiLU(),
            nn.Linear(channels, 1),
        )
        # float64: molecules have thousands of kJ/mol, of which differences matter.
        zeros = torch.zeros(n_elements + 1, dtype=torch.float64)
        self.register_buffer("element_energy", zeros)
        self.register_buffer("force_scale", torch.ones(()))
        self.register_buffer("radial_scale", torch.ones(n_max))

    def edge_features(self, positions: Tensor, species: Tensor) -> Geometry:
        """
        Radial functions and directions of the edges.

        Parameters
        ----------
        positions : Tensor, shape (B, A, 3), nm
            Positions.
        species : Tensor of int, shape (B, A)
            Index of the element, -1 for padding.

        Returns
        -------
        Geometry
            Features of edge i <- j at [:, i, j]; all can be differentiated twice.
        """
        pairs = edges_of(species).pairs
        vectors = positions[:, None, :, :] - positions[:, :, None, :]
        # Where there is no edge: beyond the cutoff, and no gradient.
        absent = vectors.new_full([1], 2.0 * self.cutoff)
        vectors = torch.where(pairs[..., None], vectors, absent)
        flat = vectors.flatten(0, 2)
        radial = spherical_fourier_bessel(flat, self.cutoff, 0, self.n_max)
        squared = (vectors * vectors).sum(-1)
        # The envelope of the radial functions, for the attention.
        s = (squared.sqrt() / self.cutoff).clamp(max=1.0)
        envelope = 1.0 - s**6 * (28.0 - s * (48.0 - 21.0 * s))
        directions = vectors * squared.rsqrt()[..., None]
        harmonics = solid_harmonics(directions.flatten(0, 2), self.l_max)
        n_batch, n_atoms = species.shape
        shape = [n_batch, n_atoms, n_atoms, -1]
        harmonics = harmonics.view(shape)
        return Geometry(
            radial.view(shape) / self.radial_scale,
            envelope,
            harmonics,
            self.couplings(harmonics),
        )

    def forward(self, positions: Tensor, species: Tensor) -> Tensor:
        """
        Compute energies.

        Parameters
        ----------
        positions : Tensor, shape (B, A, 3), nm
            Positions.
        species : Tensor of int, shape (B, A)
            Index of the element, -1 for padding.

        Returns
        -------
        Tensor, shape (B,), kJ/mol
            Energies less the sum of `element_energy`.
        """
        real = species >= 0
        padded = pad_species(species, self.n_elements)
        geometry = self.edge_features(positions, species)
        scalars = self.elements(padded)[:, :, None]
        rest = scalars.new_zeros(
            scalars.shape[0], scalars.shape[1], self.dim - 1, scalars.shape[3]
        )
        features = torch.cat([scalars, rest], dim=2)
        # TorchScript's zip knows no `strict`.
        for attention, update in zip(  # noqa: B905
            self.attention, self.update
        ):
            features = features + attention(features, geometry)
            features = features + update(features)
        energies = self.readout(features[:, :, 0])[..., 0]
        # In units of a force over 0.1 nm, the length of a bond.
        return 0.1 * self.force_scale * torch.where(real, energies, 0.0).sum(1)

    def energy_and_forces(
        self, positions: Tensor, species: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        Compute energies and forces; both can be differentiated.

        Parameters
        ----------
        positions : Tensor, shape (B, A, 3), nm
            Positions.
        species : Tensor of int, shape (B, A)
            Index of the element, -1 for padding.

        Returns
        -------
        energies : Tensor, shape (B,), kJ/mol
            As of `forward`.
        forces : Tensor, shape (B, A, 3), kJ/mol/nm
            Minus their gradient.
        """
        with torch.enable_grad():
            moved = positions.detach().requires_grad_()
            energies = self(moved, species)
            (gradient,) = torch.autograd.grad(
                energies.sum(), moved, create_graph=self.training
            )
        return energies, -gradient


def save_force(
    model: EnergyModel, description: dict[str, Any], path: str | Path
) -> Path:
    """
    Write a force with what it says about itself.

    Parameters
    ----------
    model : EnergyModel
        The network.
    description : dict
        JSON-able; ``model`` holds its options, ``elements`` its symbols.
    path : path-like
        The file; replaced if it exists.

    Returns
    -------
    Path
        The file.
    """
    saved = {"description": json.dumps(description), "weights": model.state_dict()}
    with written_whole(path) as part:
        torch.save(saved, part)
    return Path(path)


def load_force(path: str | Path) -> tuple[EnergyModel, dict[str, Any]]:
    """
    Load what `save_force` wrote.

    Parameters
    ----------
    path : path-like
        The file ``force.pt``.

    Returns
    -------
    model : EnergyModel
        The network, in evaluation mode.
    description : dict
        Configuration, elements, data, and errors on left-out frames.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"found no {path}, expected a file of openmm-diffmd force"
        )
    if _is_script(path):
        raise ValueError(
            f"found {path}, which is a model file, expected a force: a file of "
            "openmm-diffmd force"
        )
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        description = json.loads(saved["description"])
        model = EnergyModel(len(description["elements"]), **description["model"])
        model.load_state_dict(saved["weights"])
    except (
        EOFError,
        IndexError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
        UnpicklingError,
    ) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"found {path}, which is no trained force that can be read ({reason}), "
            "expected a file of openmm-diffmd force"
        ) from error
    return model.eval(), description


def _is_script(path: str | Path) -> bool:
    """Whether a file is TorchScript, of which torch speaks at length."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except zipfile.BadZipFile:
        return False
