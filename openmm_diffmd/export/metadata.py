"""What a model file says about itself."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers

from openmm_diffmd.elements import PROTON_ACCEPTORS, contact_distances, pair_name

SCHEMA_VERSION = 2
DYNAMICS = ("flow", "thermostatted")
UNITS = {"length": "nm", "time": "ps", "mass": "Da", "energy": "kJ/mol"}


class LearnedForce(NamedTuple):
    """
    The force that a model learned.

    Attributes
    ----------
    potential : str
        As its references name it.
    options : mapping
        Those of `potential`, such as a charge.
    sha256 : str or None
        Of its file, where it is one: trained forces have one name.
    """

    potential: str
    options: Mapping[str, Any]
    sha256: str | None


@dataclass(frozen=True)
class ModelMetadata:
    """
    What a model file says about itself; written as ``metadata.json`` inside it.

    Attributes
    ----------
    name : str
        Name of the model.
    dynamics : str
        ``flow`` (the frictionless transition; the integrator adds the thermostat) or
        ``thermostatted`` (the Langevin transition itself).
    lag_time_fs : float
        Time between the frames of a pair, fs.
    temperature_K : float
        Temperature the model is meant for, K.
    friction_per_ps : float
        Friction the model is meant for, 1/ps.
    elements : list of str
        Symbols; the place of an element is its species index.
    max_temperature_K : float
        Temperature of the hottest training data, K; `temperature_K` unless given.
    cutoff_nm : float
        Distance beyond which atoms do not see each other, nm.
    prior, noise_conditioning : str
        What the residual is taken about and scaled by.
    noise : dict
        ``sigma_min``, ``sigma_max`` and ``rho`` of the noise levels.
    sampler : dict
        ``name`` and ``num_steps`` used unless the user asks for others.
    conserve_angular_momentum : bool
        Whether an isolated molecule keeps its angular momentum.
    guards : dict
        ``bond_ranges_nm``, symbols sorted and joined by a dash to (low, high) in nm,
        and ``max_resamples``; of models exported since they are measured
        ``contact_limits_nm`` too, such symbols to what atoms without a bond keep, nm.
    reference, versions, config, acceptance : dict
        Provenance of the data, library versions, training configuration, and the
        figures the model was accepted with.
    git_hash : str
        Commit of the code that made the file.
    example : dict
        ``elements``, ``bonds`` and ``positions_nm`` of one molecule.
    operators : list of str
        Compiled operators the file calls, such as ``diffmd::solid_harmonics``; their
        library is loaded before it.
    dtype : str
        Always ``float32``.
    units : dict
        Always nm, ps, Da and kJ/mol.
    schema_version : int
        Version of this layout.

    Raises
    ------
    ValueError
        If a field does not fit; says what was found and what was expected.
    """

    name: str
    dynamics: str
    lag_time_fs: float
    temperature_K: float
    friction_per_ps: float
    elements: list[str]
    max_temperature_K: float = 0.0
    cutoff_nm: float = 0.5
    prior: str = "learned"
    noise_conditioning: str = "acceleration"
    noise: dict[str, float] = field(
        default_factory=lambda: {"sigma_min": 0.02, "sigma_max": 3.0, "rho": 7.0}
    )
    sampler: dict[str, Any] = field(
        default_factory=lambda: {"name": "exponential", "num_steps": 2}
    )
    conserve_angular_momentum: bool = False
    guards: dict[str, Any] = field(
        default_factory=lambda: {"bond_ranges_nm": {}, "max_resamples": 10}
    )
    reference: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git_hash: str = ""
    example: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    acceptance: dict[str, Any] = field(default_factory=dict)
    operators: list[str] = field(default_factory=list)
    dtype: str = "float32"
    units: dict[str, str] = field(default_factory=lambda: dict(UNITS))
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if not self.max_temperature_K:
            object.__setattr__(self, "max_temperature_K", self.temperature_K)
        _expect("dynamics", self.dynamics, self.dynamics in DYNAMICS, str(DYNAMICS))
        _expect("dtype", self.dtype, self.dtype == "float32", "'float32'")
        _expect("units", self.units, self.units == UNITS, str(UNITS))
        for name in ("lag_time_fs", "temperature_K", "max_temperature_K", "cutoff_nm"):
            _expect_number(name, getattr(self, name), positive=True)
        _expect_number("friction_per_ps", self.friction_per_ps)
        elements = self.elements
        good = bool(elements) and all(isinstance(symbol, str) for symbol in elements)
        good = good and len(set(elements)) == len(elements)
        _expect("elements", elements, good, "a list of different symbols")
        good = isinstance(self.operators, list)
        good = good and all(str(name).startswith("diffmd::") for name in self.operators)
        _expect("operators", self.operators, good, "names that begin with 'diffmd::'")
        self._check_sampling()
        self._check_guards()
        self._check_example()

    def _check_sampling(self) -> None:
        keys = {"sigma_min", "sigma_max", "rho"}
        _expect("noise", self.noise, set(self.noise) == keys, f"the keys {keys}")
        for key in keys:
            _expect_number(f"noise[{key!r}]", self.noise[key], positive=True)
        ordered = self.noise["sigma_min"] <= self.noise["sigma_max"]
        _expect("noise", self.noise, ordered, "sigma_min <= sigma_max")
        keys = {"name", "num_steps"}
        _expect("sampler", self.sampler, set(self.sampler) == keys, f"the keys {keys}")
        steps = self.sampler["num_steps"]
        good = isinstance(steps, int) and steps >= 0
        _expect("sampler['num_steps']", steps, good, "a whole number of at least 0")

    def _check_guards(self) -> None:
        keys = {"bond_ranges_nm", "max_resamples"}
        found = set(self.guards) - {"contact_limits_nm"}
        _expect("guards", self.guards, found == keys, f"the keys {keys}")
        resamples = self.guards["max_resamples"]
        good = isinstance(resamples, int) and resamples >= 0
        _expect("max_resamples", resamples, good, "a whole number of at least 0")
        limits = self.guards.get("contact_limits_nm", {})
        for pair in (*self.guards["bond_ranges_nm"], *limits):
            symbols = pair.split("-")
            good = len(symbols) == 2 and symbols == sorted(symbols)
            _expect("bond", pair, good, "two symbols, sorted and joined by a dash")
        for pair, limit in limits.items():
            _expect_number(f"contact limit of {pair}", limit)
        for pair, bounds in self.guards["bond_ranges_nm"].items():
            good = len(bounds) == 2 and 0 <= bounds[0] < bounds[1]
            _expect(f"range of {pair}", bounds, good, "0 <= low < high, nm")

    def _check_example(self) -> None:
        if not self.example:
            return
        keys = {"elements", "bonds", "positions_nm"}
        found = set(self.example)
        _expect("example", found, found == keys, f"the keys {keys}")
        symbols, bonds = self.example["elements"], self.example["bonds"]
        good = isinstance(symbols, list) and bool(symbols)
        good = good and all(symbol in self.elements for symbol in symbols)
        _expect("elements of the example", symbols, good, f"some of {self.elements}")
        atoms = range(len(symbols))
        good = all(len(bond) == 2 and bond[0] != bond[1] for bond in bonds)
        good = good and all(
            type(i) is int and i in atoms for bond in bonds for i in bond
        )
        _expect("bonds of the example", bonds, good, f"pairs of atoms in {atoms}")
        positions = self.example["positions_nm"]
        good = len(positions) == len(symbols) and all(len(x) == 3 for x in positions)
        good = good and all(_is_number(number) for x in positions for number in x)
        _expect("positions of the example", positions, good, "three numbers an atom")

    def bond_range(self, symbol1: str, symbol2: str) -> tuple[float, float]:
        """
        Look up the allowed length of a bond between two elements.

        Parameters
        ----------
        symbol1, symbol2 : str
            Element symbols, in any order.

        Returns
        -------
        low, high : float
            Range, nm.

        Raises
        ------
        ValueError
            If the training data held no such bond.
        """
        ranges: Mapping[str, tuple[float, float]] = self.guards["bond_ranges_nm"]
        pair = pair_name(symbol1, symbol2)
        if pair not in ranges:
            raise ValueError(
                f"found a {pair} bond, but model {self.name!r} was trained on "
                f"{', '.join(ranges) or 'no bonds'}; use a model trained on such bonds"
            )
        low, high = ranges[pair]
        return float(low), float(high)

    def contact_limit(self, symbol1: str, symbol2: str) -> float:
        """
        Look up how close two atoms may come that are not bonded.

        Parameters
        ----------
        symbol1, symbol2 : str
            Element symbols, in any order.

        Returns
        -------
        float
            Distance, nm; 0 if any. Files without ``contact_limits_nm`` have the sum of
            the covalent radii, and 0 for a hydrogen and an element of
            `PROTON_ACCEPTORS`, which may share it with another.
        """
        first, second = sorted((symbol1, symbol2))
        limits: Mapping[str, float] | None = self.guards.get("contact_limits_nm")
        if limits is not None:
            return float(limits.get(f"{first}-{second}", 0.0))
        if "H" in (first, second) and {first, second} & PROTON_ACCEPTORS:
            return 0.0
        numbers = np.array([atomic_numbers[first], atomic_numbers[second]])
        return float(contact_distances(numbers, np.array([0]), np.array([1]))[0])

    def learned_force(self) -> LearnedForce | None:
        """
        Name the force that the model learned.

        Returns
        -------
        LearnedForce or None
            As its references name it; None where they do not, or name several.
        """
        forces = {
            (
                potential := provenance.get("potential"),
                json.dumps(provenance["potential_options"]),
                provenance.get("sha256", {}).get(potential),
            )
            for file in self.reference.get("data", [])
            if "potential_options" in (provenance := file.get("provenance", {}))
        }
        if len(forces) != 1 or None in (only := forces.pop())[:1]:
            return None
        potential, options, sha256 = only
        return LearnedForce(potential, json.loads(options), sha256)

    def to_json(self) -> str:
        """
        Write as JSON.

        Returns
        -------
        str
            A JSON object of all fields.
        """
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelMetadata":
        """
        Read from JSON and check.

        Parameters
        ----------
        text : str
            What `to_json` wrote.

        Returns
        -------
        ModelMetadata
            The metadata.

        Raises
        ------
        ValueError
            If the text is no JSON object, of another schema version, has unknown or
            missing keys, or a value does not fit.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"found metadata that is not JSON ({error}); export the model again"
            ) from error
        _expect("metadata", type(values), isinstance(values, dict), "a JSON object")
        if values.get("schema_version") == 1:
            # Files of version 1 called no operator.
            values |= {"operators": [], "schema_version": 2}
        if values.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"found model schema version {values.get('schema_version')}, expected "
                f"{SCHEMA_VERSION}; export the model again with this version of "
                "openmm_diffmd, or install the version that wrote it"
            )
        known = {entry.name for entry in dataclasses.fields(cls)}
        _expect("metadata keys", set(values), set(values) == known, str(sorted(known)))
        try:
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise ValueError(
                f"found metadata of the wrong types ({error}); export the model again"
            ) from error


def _expect(name: str, found: object, good: bool, expected: str) -> None:
    if not good:
        raise ValueError(
            f"found {name} {found!r}, expected {expected}; correct the model's metadata"
        )


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < math.inf


def _expect_number(name: str, value: object, *, positive: bool = False) -> None:
    good = _is_number(value)
    if good and isinstance(value, int | float):
        good = value > 0 if positive else value >= 0
    kind = "a positive number" if positive else "a number of at least 0"
    _expect(name, value, good, kind)
