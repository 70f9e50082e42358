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
        molecules, potentials = (", ".join(sorted(n)) for n in learned_of(model))
        raise ValueError(
            f"found no reference for {model.metadata.name}, which was trained on "
            f"{molecules} by {potentials}; the bundled one is of {ITS_MOLECULE} by "
            f"{ITS_POTENTIAL}: give one of openmm-diffmd reference"
        )
    return BUNDLED_REFERENCE
