"""The reference that comes with the package, for models of its molecule."""

from pathlib import Path

from openmm_diffmd.analysis.loading import BUNDLED
from openmm_diffmd.export.torchscript import DiffusionModel

ITS_MOLECULE = "ethanol"
BUNDLED_REFERENCE = BUNDLED[ITS_MOLECULE]


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
        If none is given and the model was trained on other molecules: one that knows
        the elements would move ethanol, badly, under its own molecule's name.
    """
    if given is not None:
        return BUNDLED.get(str(given).lower(), given)
    trained = model.metadata.reference.get("data", [])
    names = {data.get("provenance", {}).get("molecule") for data in trained} - {None}
    if names and ITS_MOLECULE not in names:
        raise ValueError(
            f"found no reference for {model.metadata.name}, which was trained on "
            f"{', '.join(sorted(map(str, names)))}; the bundled one is of "
            f"{ITS_MOLECULE}: give one of openmm-diffmd reference"
        )
    return BUNDLED_REFERENCE
