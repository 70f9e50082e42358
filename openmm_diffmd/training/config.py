"""What can be set for a training; documented where it is declared."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from openmm_diffmd.checks import above, at_least, one_of, within
from openmm_diffmd.models.transition import (
    NOISE_CONDITIONINGS,
    PRIORS,
    NoiseConditioning,
    Prior,
)

Dynamics = Literal["flow", "thermostatted"]
Algorithm = Literal["adamw", "muon"]


def _check_encoder(options: "ModelConfig | EnergyModelConfig") -> None:
    above(0, cutoff=options.cutoff)
    within(1, 3, l_max=options.l_max)
    at_least(
        1,
        n_max=options.n_max,
        channels=options.channels,
        n_heads=options.n_heads,
        edge_channels=options.edge_channels,
        n_layers=options.n_layers,
    )


@dataclass(frozen=True)
class ModelConfig:
    """
    Options of the network.

    Attributes
    ----------
    prior : str
        ``learned``, ``ballistic``, ``previous_frame`` or ``gaussian``.
    noise_conditioning : str
        ``acceleration`` or ``element``.
    cutoff : float
        Range of the edges, nm.
    velocity_cutoff : float
        Mass-weighted velocity at which its features vanish, sqrt(kJ/mol); eight
        times sqrt(kT) at 500 K.
    l_max : int
        Highest degree of the features, 1 to 3.
    n_max : int
        Radial functions a degree.
    channels, n_heads, edge_channels, n_layers : int
        Sizes of the encoder.
    head_channels, head_layers : int
        Sizes of the denoising head.
    velocity_features : bool
        Expand velocities in Fourier-Bessel functions, for the atoms and contracted
        with the edges; without, atoms are given them as plain vectors.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    prior: Prior = "learned"
    noise_conditioning: NoiseConditioning = "acceleration"
    cutoff: float = 0.5
    velocity_cutoff: float = 16.0
    l_max: int = 1
    n_max: int = 8
    channels: int = 48
    n_heads: int = 4
    edge_channels: int = 48
    n_layers: int = 5
    head_channels: int = 24
    head_layers: int = 1
    velocity_features: bool = True

    def __post_init__(self) -> None:
        """Refuse what PyTorch would only fail at, or make nothing of."""
        _check_encoder(self)
        one_of(PRIORS, prior=self.prior)
        one_of(NOISE_CONDITIONINGS, noise_conditioning=self.noise_conditioning)
        above(0, velocity_cutoff=self.velocity_cutoff)
        at_least(1, head_channels=self.head_channels, head_layers=self.head_layers)


@dataclass(frozen=True)
class EnergyModelConfig:
    """
    Options of the network of an ML force: those of the encoder of `ModelConfig`.

    Attributes
    ----------
    cutoff : float
        Range of the edges, nm.
    l_max : int
        Highest degree of the features, 1 to 3.
    n_max : int
        Radial functions.
    channels, n_heads, edge_channels, n_layers : int
        Sizes.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    cutoff: float = 0.5
    l_max: int = 1
    n_max: int = 8
    channels: int = 48
    n_heads: int = 4
    edge_channels: int = 48
    n_layers: int = 5

    def __post_init__(self) -> None:
        """Refuse what PyTorch would only fail at, or make nothing of."""
        _check_encoder(self)


@dataclass(frozen=True)
class DataConfig:
    """
    Options of the data.

    Attributes
    ----------
    lag_time_fs : float
        Lag, fs.
    dynamics : str
        ``flow`` for frictionless bursts, ``thermostatted`` for Langevin dynamics.
    fractions : tuple of float
        Shares of training, validation and test frames, contiguous in time.
    time_reversal : bool
        Run half of the pairs backwards; for ``flow`` only.
    drop_acceleration : float
        Share of pairs whose acceleration is withheld, as on a first step.
    perturbed : float
        Share of pairs whose state is perturbed, at a level the network is told.
    perturbation : tuple of float
        Perturbation of positions and velocities at level 1, in units of the
        elements' scales.
    unrolled_lags : int
        Lags that the mean goes from its own state before it is compared, 1 unless
        given; for ``flow`` and the learned prior only. So many times the cost.
    frame_interval_fs : float, optional
        Time between frames of MD17 (npz), fs, 0.5 unless given, or of extended xyz,
        which has no times and needs it.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    lag_time_fs: float = 10.0
    dynamics: Dynamics = "flow"
    fractions: tuple[float, float, float] = (0.9, 0.05, 0.05)
    time_reversal: bool = True
    drop_acceleration: float = 0.1
    perturbed: float = 0.2
    perturbation: tuple[float, float] = (0.05, 0.05)
    unrolled_lags: int = 1
    frame_interval_fs: float | None = None

    def __post_init__(self) -> None:
        """Refuse what would only fail, or mislead, after the training."""
        one_of(get_args(Dynamics), dynamics=self.dynamics)
        at_least(1, unrolled_lags=self.unrolled_lags)
        above(0, lag_time_fs=self.lag_time_fs, frame_interval_fs=self.frame_interval_fs)
        within(0, 1, drop_acceleration=self.drop_acceleration, perturbed=self.perturbed)
        for level in self.perturbation:
            at_least(0, perturbation=level)


@dataclass(frozen=True)
class OptimizerConfig:
    """
    Options of the optimisation of any training.

    Attributes
    ----------
    num_steps : int
        Optimizer steps.
    batch_size : int
        Pairs a step; frames, where a force is trained.
    algorithm : str
        ``muon``, orthogonal steps in matrices and AdamW's in the rest, or ``adamw``.
    learning_rate : float
        Highest learning rate of AdamW, to whose steps Muon's are scaled.
    warmup_steps : int
        Steps to reach it.
    decay_fraction : float
        Last share of the steps, over which it falls linearly to 0.
    weight_decay : float
        Decoupled weight decay, for Muon and AdamW.
    gradient_clip : float
        Largest norm of the gradient.
    ema_decay : float
        Decay of the running average of the weights; the average is what is exported.
    validation_interval : int
        Steps between validations.
    checkpoint_interval : int
        Steps between checkpoints.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    num_steps: int = 40000
    batch_size: int = 64
    algorithm: Algorithm = "muon"
    learning_rate: float = 2e-3
    warmup_steps: int = 500
    decay_fraction: float = 0.4
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    validation_interval: int = 1000
    checkpoint_interval: int = 500

    def __post_init__(self) -> None:
        """Refuse what would only fail, or mislead, after the training."""
        one_of(get_args(Algorithm), algorithm=self.algorithm)
        at_least(
            1,
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            validation_interval=self.validation_interval,
            checkpoint_interval=self.checkpoint_interval,
        )
        at_least(
            0,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
        )
        above(0, gradient_clip=self.gradient_clip)
        within(0, 1, decay_fraction=self.decay_fraction)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"found ema_decay {self.ema_decay:g}, expected at least 0 and less "
                "than 1"
            )


@dataclass(frozen=True)
class TransitionOptimizerConfig(OptimizerConfig):
    """
    Options of the optimisation of a transition model: those of noise beside the rest.

    Attributes
    ----------
    num_noise_draws : int
        Noise levels drawn for each encoded condition; 0 trains the mean and the
        spread alone, for a denoiser that is trained afterwards.
    sigma_min, sigma_max : float
        Range of the noise levels.
    freeze_encoder : bool
        Train only the denoiser and the residual's scale, on the encoder of
        `initialize_from`: the second part of a recipe, when the mean has settled.
    compile : bool
        Compile the network with torch.compile: minutes at the start for each size of
        molecule, then quicker steps. Needs a C++ compiler.

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    num_noise_draws: int = 2
    sigma_min: float = 0.05
    sigma_max: float = 3.0
    freeze_encoder: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse what would only fail, or mislead, after the training."""
        super().__post_init__()
        at_least(0, num_noise_draws=self.num_noise_draws)
        if not 0 < self.sigma_min <= self.sigma_max:
            raise ValueError(
                f"found sigma_min {self.sigma_min}, sigma_max {self.sigma_max}; "
                "expected 0 < sigma_min <= sigma_max"
            )


@dataclass(frozen=True)
class TrainConfig:
    """
    All options of a training.

    Attributes
    ----------
    model, data, optimizer : ModelConfig, DataConfig, TransitionOptimizerConfig
        The parts.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: TransitionOptimizerConfig = field(
        default_factory=TransitionOptimizerConfig
    )
