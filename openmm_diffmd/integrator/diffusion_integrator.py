"""The integrator as Python sees it."""

import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from openmm import (
    Context,
    Integrator,
    OpenMMException,
    XmlSerializer,
    app,
    unit,
)

from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.export.torchscript import (
    DiffusionModel,
    load_metadata,
    load_model,
)
from openmm_diffmd.integrator import bindings
from openmm_diffmd.integrator.guards import Refusal
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.units import FS_PER_PS, to_float

COLDEST, HOTTEST = 0.6, 1.25
"""Temperatures of a bath, parts of the model's, beyond which it is told.

Models of 500 K were judged in baths of 300 K, and not below.
"""


class DiffusionIntegrator(bindings.DiffusionIntegrator):
    """
    An OpenMM integrator that moves molecules by learned diffusion, a lag at a time.

    One step is one lag. Seed, temperature and friction are set as with OpenMM's
    Langevin integrators. Molecules do not see each other; molecule i has the noise of
    a single run with seed + i, so that runs of R molecules need seeds at least R apart
    to be independent.

    Forces of the System in the integrator's force groups act on top of what was
    learned: restraints and biases, not the forces that the model has learned. They are
    impulses at the ends of each lag tau, v <- v + F tau/(2m), as in multiple time
    stepping; with none, no force is evaluated. A bias is too strong for that where it
    changes much within a lag: a spring k on a mass m widens the variance of its
    coordinate by once to twice (tau/2)^2 k/m (and is unstable where that nears 1); the
    velocities stay at the bath's temperature. A bias must not pull on a bond to
    hydrogen: its period, 9 to 11 fs, may be about the lag, and the impulses then
    resonate with it. Above all, keep the energy of one impulse, (F tau)^2/(8m), well
    below kT: beyond, the model meets states that it was not trained on.

    The molecule itself has no potential energy: 0 is reported, and methods that compare
    energies, such as tempering, mean nothing for it. A minimiser does not move it, or
    by a bias alone, which tears it.

    On a CPU the network takes the threads of torch (`torch.set_num_threads`, or
    ``OMP_NUM_THREADS``); a platform's property ``Threads`` is for forces only.

    Parameters
    ----------
    model : DiffusionModel, str or path-like
        The model, or what `load_model` takes.
    topology : openmm.app.Topology
        Atoms and bonds, in the order of the System's particles.
    temperature : Quantity or float, optional
        Temperature of the heat bath, K; the model's unless given.
    friction : Quantity or float, optional
        Friction of the heat bath, 1/ps; the model's unless given. 0 is NVE.
    molecules : sequence of int, shape (n_atoms,), optional
        Molecule id of each atom; by default all atoms form one molecule.
    sampler : str, optional
        ``exponential``, ``euler``, ``heun`` or ``predictor_corrector``.
    num_sampling_steps : int, optional
        Denoising steps; 0 takes the model's mean.
    max_resamples : int, optional
        Redraws of one molecule's lag before an OpenMMException is raised.
    conserve_angular_momentum : bool, optional
        Whether molecules keep their angular momentum.
    molecules_per_batch : int
        Most molecules that the network sees at once; 0 for as many as keep its memory
        in a CPU's caches, and for all on a GPU. It changes results by rounding only.

    Warns
    -----
    UserWarning
        If the heat bath is far from the temperature that the model is for, or weaker
        than the one in which the model was seen to last, or the noise was not
        calibrated for the sampler and its steps.

    Raises
    ------
    ValueError
        If the model does not know an element or bond, or a choice does not fit it.
    FileNotFoundError
        If there is no such model.
    TypeError
        If an argument is of another type, or has another unit.
    """

    def __init__(
        self,
        model: DiffusionModel | str | os.PathLike[str],
        topology: app.Topology,
        *,
        temperature: Any = None,
        friction: Any = None,
        molecules: Sequence[int] | NDArray[np.int64] | None = None,
        sampler: str | None = None,
        num_sampling_steps: int | None = None,
        max_resamples: int | None = None,
        conserve_angular_momentum: bool | None = None,
        molecules_per_batch: int = 0,
    ) -> None:
        if not isinstance(model, DiffusionModel):
            model = load_model(model)
        metadata = model.metadata
        settings = resolve_settings(
            metadata,
            temperature=temperature,
            friction=friction,
            sampler=sampler,
            num_sampling_steps=num_sampling_steps,
            max_resamples=max_resamples,
            conserve_angular_momentum=conserve_angular_momentum,
            molecules_per_batch=molecules_per_batch,
        )
        described = describe_molecules(topology, metadata, molecules)
        super().__init__(
            str(model.path),
            model.sha256,
            metadata.lag_time_fs / FS_PER_PS,
            settings.temperature,
            settings.friction,
            metadata.dynamics == "thermostatted",
        )
        self._metadata = metadata
        self.setMaxTemperature(metadata.max_temperature_K)
        super().setSampler(settings.sampler)
        super().setNumSamplingSteps(settings.num_sampling_steps)
        noise = metadata.noise
        self.setNoiseLevels(noise["sigma_min"], noise["sigma_max"], noise["rho"])
        self.setMaxResamples(settings.max_resamples)
        self.setConserveAngularMomentum(settings.conserve_angular_momentum)
        self.setMoleculesPerBatch(settings.molecules_per_batch)
        for quantile in described.kinetic_energy_quantiles.tolist():
            self.addMolecule(quantile)
        for particle in zip(
            described.species.tolist(),
            described.masses.tolist(),
            described.molecules.tolist(),
            strict=True,
        ):
            self.addParticle(*particle)
        for (i, j), (low, high) in zip(
            described.bonds.tolist(), described.bond_ranges.tolist(), strict=True
        ):
            self.addBond(i, j, low, high)
        for (i, j), limit in np.ndenumerate(described.contact_limits):
            if i <= j:
                self.addContactLimit(i, j, float(limit))
        self._warn_of_temperature(settings.temperature)
        _warn_if_low(metadata, settings.friction)
        _warn_if_uncalibrated(metadata, settings.sampler, settings.num_sampling_steps)

    @classmethod
    def from_xml(cls, xml: str) -> Self:
        """
        Read an integrator that `openmm.XmlSerializer` wrote.

        ``XmlSerializer.deserialize`` gives an `openmm.Integrator` that runs alike, but
        without the methods of this class.

        Parameters
        ----------
        xml : str
            What ``XmlSerializer.serialize`` returned.

        Returns
        -------
        DiffusionIntegrator
            The integrator, not bound to a Context.

        Raises
        ------
        openmm.OpenMMException
            If the model file is gone or is not the one that was used, or the XML is
            damaged or says something else than the model.
        """
        integrator = cls._fromXml(xml)
        integrator.__class__ = cls
        read: Self = integrator
        return read

    @classmethod
    def cast(cls, integrator: Integrator, owner: Any = None) -> Self:
        """
        Take for what it is an integrator that OpenMM returned as `openmm.Integrator`.

        ``CompoundIntegrator.getIntegrator``, ``Context.getIntegrator`` and
        ``XmlSerializer.deserialize`` return it so.

        Parameters
        ----------
        integrator : openmm.Integrator
            A DiffusionIntegrator.
        owner : object, optional
            What owns it, as the CompoundIntegrator it is a part of, and is kept alive
            as long as what this returns. Without it the caller has to keep it.

        Returns
        -------
        DiffusionIntegrator
            The same integrator, not a copy.

        Raises
        ------
        TypeError
            If it is no integrator, or another one.
        """
        if isinstance(integrator, cls):
            return integrator
        try:
            found: Self = cls._castFrom(integrator)
        except (TypeError, OpenMMException) as error:
            raise TypeError(
                f"found a {type(integrator).__name__}, expected a DiffusionIntegrator"
            ) from error
        found.__class__ = cls
        found._owners = integrator, owner
        return found

    def setTemperature(self, temp: Any) -> None:
        """
        Set the temperature of the heat bath.

        Parameters
        ----------
        temp : Quantity or float
            Temperature, K.

        Raises
        ------
        TypeError
            If it has another unit, or is a text.
        openmm.OpenMMException
            If it is negative, or the model has learned its heat bath.

        Warns
        -----
        UserWarning
            If it is far from the temperature that the model is for.
        """
        temperature = to_float(temp, unit.kelvin)
        # Read before anything is set: the model file may be gone.
        _ = self._metadata
        super().setTemperature(temperature)
        self._warn_of_temperature(temperature)

    def setFriction(self, coeff: Any) -> None:
        """
        Set the friction of the heat bath.

        Parameters
        ----------
        coeff : Quantity or float
            Friction, 1/ps; 0 is no heat bath.

        Raises
        ------
        TypeError
            If it has another unit.
        openmm.OpenMMException
            If it is negative, or the model has learned its heat bath.

        Warns
        -----
        UserWarning
            If it is lower than the one at which the model was seen to last.
        """
        metadata = self._metadata
        friction = to_float(coeff, unit.picosecond**-1)
        super().setFriction(friction)
        _warn_if_low(metadata, friction)

    def setSampler(self, sampler: str) -> None:
        """
        Set the sampler, before the Context is made.

        Parameters
        ----------
        sampler : str
            ``exponential``, ``euler``, ``heun`` or ``predictor_corrector``.

        Raises
        ------
        openmm.OpenMMException
            If there is no such sampler.

        Warns
        -----
        UserWarning
            If the model's noise was not calibrated for it.
        """
        metadata = self._metadata
        super().setSampler(sampler)
        _warn_if_uncalibrated(metadata, sampler, self.getNumSamplingSteps())

    def setNumSamplingSteps(self, steps: int) -> None:
        """
        Set the number of denoising steps K, before the Context is made.

        Parameters
        ----------
        steps : int
            Denoising steps; 0 takes the model's mean.

        Raises
        ------
        openmm.OpenMMException
            If it is negative.

        Warns
        -----
        UserWarning
            If the model's noise was not calibrated for it.
        """
        metadata = self._metadata
        super().setNumSamplingSteps(steps)
        _warn_if_uncalibrated(metadata, self.getSampler(), steps)

    def setRescueContext(self, context: Context | None) -> None:
        """
        Set a Context that runs the lags which cannot be drawn.

        What the guards would give up after `max_resamples` redraws is run there with
        the reference force, from the state after the first half step of the heat bath,
        and counted by ``getNumRescues``. XML does not hold it.

        Parameters
        ----------
        context : openmm.Context or None
            A Context of one molecule, the same atoms in the same order as each of the
            integrator's; None for none. Its System has no thermostat, barostat or
            CMMotionRemover, its step divides the lag time, and its integrator
            is a VerletIntegrator (or, where the model has learned its heat bath, a
            LangevinMiddleIntegrator of that bath), or a CustomIntegrator that keeps
            velocities at the time of positions.

        Raises
        ------
        TypeError
            If it is no Context.
        openmm.OpenMMException
            If masses, forces, step size, constraints or integrator do not fit, or a
            step has not returned, which may be using the Context of before.
        """
        if context is not None and not isinstance(context, Context):
            raise TypeError(
                f"found a {type(context).__name__} for the rescue, expected a Context: "
                "of a Simulation give simulation.context"
            )
        # Twice: the C++ class takes a bare pointer, and what keeps it alive.
        self._shareRescueContext(context, context)

    def getLastRefusalDetails(self) -> Refusal | None:
        """
        Return what the guards found in the last draw they refused, as numbers.

        Returns
        -------
        Refusal or None
            Lag, molecule, atoms and values; None if nothing was refused.
        """
        lag, molecule, quantity, atoms, values, *expected = self._getLastRefusalTuple()
        if lag < 0:
            return None
        low, high = expected
        return Refusal(
            lag, molecule, quantity, atoms, values, (low, high), self.getLastRefusal()
        )

    def _warn_of_temperature(self, temperature: float) -> None:
        metadata = self._metadata
        hottest = self.getMaxTemperature().value_in_unit(unit.kelvin)
        its = metadata.temperature_K
        if temperature > hottest:
            warnings.warn(
                f"found temperature {temperature:g} K, expected at most {hottest:g} K, "
                "the hottest data the model was trained on; what it draws beyond is "
                "extrapolated",
                stacklevel=3,
            )
        elif not COLDEST <= temperature / its <= HOTTEST:
            warnings.warn(
                f"found temperature {temperature:g} K, expected some {its:g} K, which "
                f"model {metadata.name!r} was trained for: what it draws at another "
                "was not judged; compare it with a reference of that temperature",
                stacklevel=3,
            )

    @cached_property
    def _metadata(self) -> ModelMetadata:
        # Of one that was read or cast; the constructor sets it.
        return load_metadata(self.getModelFile())

    # openmm.Integrator copies and pickles by XML too, but to its own class.
    def __copy__(self) -> Self:
        return self.from_xml(XmlSerializer.serialize(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def __setstate__(self, xml: str) -> None:
        self.this = self.from_xml(xml).this


def _warn_if_low(metadata: ModelMetadata, friction: float) -> None:
    its = metadata.friction_per_ps
    if friction < its:
        warnings.warn(
            f"found friction {friction:g}/ps, expected at least {its:g}/ps, at which "
            f"model {metadata.name!r} was judged: a weaker bath takes less of its "
            "errors away; watch the temperatures of elements and bonds",
            stacklevel=3,
        )


def _warn_if_uncalibrated(
    metadata: ModelMetadata, sampler: str, num_steps: int
) -> None:
    its = metadata.sampler
    # The exponential one draws the spread of a Gaussian in any number of steps.
    steps = num_steps if sampler == "exponential" else its["num_steps"]
    if num_steps == 0 or (sampler, num_steps) == (its["name"], steps):
        return
    warnings.warn(
        f"found sampler {sampler} of {num_steps} steps, expected {its['name']} of "
        f"{its['num_steps']}, for which the noise of model {metadata.name!r} was "
        "calibrated: with another its spread is wrong, to half or twice in few steps, "
        "and with it the heat that it adds; export the model with --sampler",
        stacklevel=3,
    )
