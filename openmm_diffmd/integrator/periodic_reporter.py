"""What our reporters have in common: a report each so many steps."""

from typing import Any

from openmm import app


class PeriodicReporter:
    """
    Base of OpenMM reporters that report each so many steps.

    Parameters
    ----------
    reportInterval : int
        Steps between reports.
    include : str
        What a report needs of the State, such as ``positions``.

    Raises
    ------
    ValueError
        If the interval is no whole number, or less than 1.
    """

    def __init__(self, reportInterval: int, *include: str) -> None:
        if reportInterval % 1 or reportInterval < 1:
            raise ValueError(
                f"found a report interval of {reportInterval}, expected a whole number "
                "of steps, 1 or more"
            )
        self._interval = int(reportInterval)
        self._include = list(include)

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """
        Say when the next report is due and what it needs.

        Parameters
        ----------
        simulation : openmm.app.Simulation
            The simulation.

        Returns
        -------
        dict
            As OpenMM's reporters.
        """
        return {
            "steps": self._steps_to_next(simulation),
            "periodic": False,
            "include": self._include,
        }

    def _steps_to_next(self, simulation: app.Simulation) -> int:
        return int(self._interval - simulation.currentStep % self._interval)
