"""The reference that comes with the package, for models of its molecule."""

from pathlib import Path

from openmm_diffmd.analysis.loading import BUNDLED
from openmm_diffmd.export.torchscript import DiffusionModel

ITS_MOLECULE, ITS_POTENTIAL = "ethanol", "GFN2-xTB"
BUNDLED_REFERENCE = BUNDLED[ITS_MOLECULE]


def learned_of(model: DiffusionModel) -> tuple[set[str], set[str]]:
    """
    List the molecules and the potentials of a model's training, as far as known.

    Parameters
    ----------
    model : DiffusionModel
        A model.

    Returns
    -------
    molecules, potentials : set of str
        Their names.
    """
    trained = model.metadata.reference.get("data", [])
    made = [data.get("provenance", {}) for data in trained]
    return (
        {str(m["molecule"]) for m in made if m.get("molecule") is not None},
        {str(m["potential"]) for m in made if m.get("potential") is not None},
    )


def knows_bundled(model: DiffusionModel) -> bool:
    """
    Tell whether a model may be measured by the bundled reference.

    Parameters
    ----------
    model : DiffusionModel
        A model.

    Returns
    -------
    bool
        False if it was trained on other molecules, or by another force.
    """
    molecules, potentials = learned_of(model)
    return (not molecules or ITS_MOLECULE in molecules) and (
        not potentials or ITS_POTENTIAL in potentials
    )


def reference_of(model: DiffusionModel, given: Path | None) -> Path:
    """
    Take the reference that is given, else the bundled one if the model knows ethanol.

    Parameters
    ----------
    model : DiffusionModel
        The model that is to be measured.
    given : path-like or None
        What the command line names: a file, or ``ethanol``, the bundled one.

    Returns
    -------
    Path
        The reference.

    Raises
    ------
    ValueError
        If none is given and the model was trained on other molecules (one that knows
        the elements would move ethanol, badly, under its own molecule's name), or by
        another force.
    """
    if given is not None:
        return BUNDLED.get(str(given).lower(), given)
    if not knows_bundled(model):
        molecules, potentials = (sorted(names) for names in learned_of(model))
        name, temperature = model.metadata.name, model.metadata.temperature_K
        molecule = name if name in molecules else "MOLECULE"
        potential = potentials[0] if len(potentials) == 1 else "POTENTIAL"
        raise ValueError(
            f"found no reference for {name}, which was trained on "
            f"{', '.join(molecules)} by {', '.join(potentials)}; the bundled one is of "
            f"{ITS_MOLECULE} by {ITS_POTENTIAL}: make one, as by openmm-diffmd "
            f"reference --config reference_molecule --molecule {molecule} "
            f"--potential {potential} --temperature_K {temperature:g} --length_ps 100 "
            f"--seed 2 --chained false --num_bursts 0 --output data/{name}, and give "
            "its thermostatted.h5"
        )
    return BUNDLED_REFERENCE
