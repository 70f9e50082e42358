from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import matplotlib.image
import numpy as np

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.figures import Row
from openmm_diffmd.analysis.goal import Goal
from openmm_diffmd.analysis.goals import judge
from openmm_diffmd.analysis.measure import Reference, measure
from openmm_diffmd.analysis.plots import plot_rows
from openmm_diffmd.analysis.report import (
    format_columns,
    goal_lines,
    mode_table,
    structure_table,
    temperature_table,
    to_plain,
)

Maker = Callable[..., Ensemble]


def test_error_that_one_frame_cannot_tell_is_a_dash(
    gaussian_ethanol: Maker, reference: Reference, tmp_path: Path
):
    one = measure("one", gaussian_ethanol(1, 1, seed=7), reference)
    goals = judge(one.figures, reference.figures)
    temperatures = [goal for goal in goals if "equipartition" in goal.name]
    assert len(temperatures) == 3 + 5
    assert all(g.passed is None and "+- - %" in g.found for g in temperatures)
    assert "nan" not in mode_table(reference, [one])
    table = temperature_table(reference, [one])
    assert table.splitlines()[2].split()[2:4] == ["+-", "-"]
    assert "nan" not in table + structure_table(reference, [one]) + goal_lines(goals)
    plot_rows(reference, [one], tmp_path / "a.png", "title")


def test_report_and_picture_show_every_row(
    row: Row, reference: Reference, tmp_path: Path
):
    table = structure_table(reference, [row])
    lines = table.splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["same", "floor"]
    assert f"{row.figures.h_r_error:.3f}" in lines[3]
    temperatures = temperature_table(reference, [row]).splitlines()
    assert [line.split()[0] for line in temperatures[2:]] == [
        "same",
        "reference",
        "equipartition",
    ]
    plot_rows(reference, [row], tmp_path / "a.png", "title", [row])
    image = matplotlib.image.imread(tmp_path / "a.png")
    assert image.shape[:2] == (1312, 1760)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_columns_are_aligned():
    assert format_columns(
        ["", "a\nps", "b"], [["x", "1.0", "22"], ["long", "2", "3"]]
    ) == ("        a\n       ps   b\n-------------\nx     1.0  22\nlong    2   3")


def test_summary_counts_goals_by_verdict():
    goals = [Goal("a", "1", True), Goal("b", "2", None), Goal("c", "3", False)]
    assert goal_lines(goals).splitlines()[-1] == (
        "1 of 3 goals met; undecided: b; MISSED: c"
    )


def test_plain_values_are_json(row: Row):
    plain = to_plain(row.curves.stability)
    assert plain["break_times"] == [None] * 4
    assert plain["stable_frames"] == [2000] * 4
    assert to_plain({"a": (np.float64(1.5), float("inf"))}) == {"a": [1.5, None]}
    assert to_plain(MappingProxyType({1: np.float64(1.5)})) == {"1": 1.5}
