"""What the ablations vary: the variants that are trained, the cells that are run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openmm_diffmd.diffusion.samplers import SAMPLERS

BUNDLED = "bundled"
GROUPS = ("controls", "friction", "training", "sampler", "lag")
FRICTIONS = (0.0, 0.2, 1.0, 5.0)
SAMPLING_STEPS = (1, 2, 4, 8, 16)
LAGS_FS = (5.0, 10.0, 20.0)
LAG_FS = 10.0


@dataclass(frozen=True)
class Variant:
    """
    What is trained; it differs from the default in what it names.

    Attributes
    ----------
    name : str
        Name of the row.
    model, data : mapping
        Options of `ModelConfig` and of `DataConfig`.
    lag_time_fs : float
        Lag, fs.
    dynamics : str
        ``flow`` or ``thermostatted``.
    trained_as : str, optional
        Name of the row whose training it shares; one of its own unless given.
    refit_pairs, balance_pairs : int
        Pairs that export refits the last layer of the mean to, and over which it takes
        away heat; others are exported as they were trained.
    """

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    lag_time_fs: float = LAG_FS
    dynamics: str = "flow"
    trained_as: str | None = None
    refit_pairs: int = 0
    balance_pairs: int = 0


@dataclass(frozen=True)
class Cell:
    """
    One training and one rollout, or a rollout of the bundled model.

    Attributes
    ----------
    group : str
        One of `GROUPS`.
    variant : Variant or None
        What is trained; None for the bundled model.
    sampler : str
        Sampler.
    num_sampling_steps : int
        K; 0 is the mean alone.
    friction : float
        Friction of the heat bath, 1/ps.
    seed : int
        Seed of training and rollout.
    """

    group: str
    variant: Variant | None
    sampler: str = "exponential"
    num_sampling_steps: int = 4
    friction: float = 1.0
    seed: int = 1

    @property
    def row(self) -> tuple[str, ...]:
        """Group, model, sampler, K and friction: what seeds are averaged over."""
        sampler = "mean" if self.num_sampling_steps == 0 else self.sampler
        name = BUNDLED if self.variant is None else self.variant.name
        return (
            self.group,
            name,
            sampler,
            str(self.num_sampling_steps),
            f"{self.friction:g}",
        )

    @property
    def key(self) -> str:
        """Name of the cell in the results."""
        return "/".join([*self.row, f"seed {self.seed}"])


LEARNED = Variant("learned prior")


def _lag_variant(lag_time_fs: float) -> Variant:
    if lag_time_fs == LAG_FS:
        return LEARNED
    return Variant(f"lag {lag_time_fs:g} fs", lag_time_fs=lag_time_fs)


TRAINED: tuple[tuple[Variant, tuple[int, ...]], ...] = (
    (LEARNED, (0, 2, 8)),
    (
        Variant("last layer refitted", trained_as=LEARNED.name, refit_pairs=8192),
        (0, 2),
    ),
    (Variant("balanced", trained_as=LEARNED.name, balance_pairs=16384), (2,)),
    (Variant("states perturbed", data={"perturbed": 0.1}), (0, 2)),
    (Variant("no time reversal", data={"time_reversal": False}), (0, 2)),
    (Variant("four lags unrolled", data={"unrolled_lags": 4}), (0, 2)),
    (Variant("thermostatted", dynamics="thermostatted"), (2, 8)),
    (Variant("no velocity features", {"velocity_features": False}), (0, 2)),
    (Variant("ballistic prior", {"prior": "ballistic"}), (8,)),
    (Variant("noise by element", {"noise_conditioning": "element"}), (2,)),
    (Variant("previous frame prior", {"prior": "previous_frame"}), (8,)),
    (Variant("gaussian prior", {"prior": "gaussian"}), (8,)),
)
"""Variants of the group ``training`` and the K each is run with. The mean of a fixed
prior is a control, last frame or constant velocity, and needs no run."""


def cells(
    groups: Sequence[str],
    variants: Sequence[str] | None,
    seeds: int,
    friction: float,
) -> list[Cell]:
    """
    List the cells in the order they are run.

    Parameters
    ----------
    groups : sequence of str
        Some of `GROUPS`; ``controls`` has no cells.
    variants : sequence of str or None
        Names of `TRAINED`, for the group ``training``; None for all.
    seeds : int
        Seeds of the group ``training``; the other groups have one.
    friction : float
        Friction where it is not varied, 1/ps.

    Returns
    -------
    list of Cell
        The cells.

    Raises
    ------
    ValueError
        If there is no such group or variant.
    """
    names = [variant.name for variant, _ in TRAINED]
    variants = names if variants is None else variants
    for kind, found, known in (
        ("groups", groups, GROUPS),
        ("variants", variants, names),
    ):
        if not set(found) <= set(known):
            raise ValueError(f"found {kind} {[*found]}, expected some of {[*known]}")
    lists: dict[str, list[Cell]] = {
        "controls": [],
        "friction": [
            Cell("friction", None, "exponential", steps, value)
            for value in FRICTIONS
            for steps in (0, 4)
        ],
        "sampler": _sweep("sampler", None, friction),
        "training": [
            Cell("training", variant, "exponential", steps, friction, seed)
            for seed in range(1, seeds + 1)
            for variant, counts in TRAINED
            if variant.name in variants
            for steps in counts
        ],
        "lag": [
            cell
            for lag_time_fs in LAGS_FS
            for cell in _sweep("lag", _lag_variant(lag_time_fs), friction)
        ],
    }
    return [cell for group in GROUPS if group in groups for cell in lists[group]]


def _sweep(group: str, variant: Variant | None, friction: float) -> list[Cell]:
    swept = [
        Cell(group, variant, sampler, steps, friction)
        for sampler in SAMPLERS
        for steps in SAMPLING_STEPS
    ]
    return [Cell(group, variant, "exponential", 0, friction), *swept]
