"""What `reliability.py` prints, draws and writes."""

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from early_warning import EventWarning
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from reliability_curve import Reliability

from openmm_diffmd.analysis.report import format_columns

QUANTITIES = ("position", "velocity")
UNITS = ("nm", "nm/ps")
COLORS = ("#3c3c3c", "#0f7ba0", "#d9722e", "#7a9e3b", "#8a5a9e")
STYLES = [(color, dashes) for dashes in ("-", "--", "-.") for color in COLORS]


def print_tables(
    rows: dict[str, dict[str, Reliability]], runs: dict[str, dict[str, Any]]
) -> None:
    """Print what was found."""
    header = ["", "error /\nspread", "calibration\nerror", "slope"]
    header += ["rank\ncorrelation", "best\npossible", "atoms"]
    lines = [
        [
            f"{symbol} {name}",
            f"{r.ratio:.2f}",
            f"{r.calibration_error:.2f}",
            f"{r.slope:.2f}",
            f"{r.correlation:.2f}",
            f"{r.best_correlation:.2f}",
            f"{r.n_samples}",
        ]
        for symbol, quantities in rows.items()
        for name, r in quantities.items()
    ]
    print("\n" + format_columns(header, lines), end="\n\n")
    if not runs:
        return
    header = ["", "refused\nlags", "broken", "first of\na series"]
    header += ["area under ROC\nat the lag", "5 lags\nbefore", "10 lags\nbefore"]
    header += ["warned at\nthe lag", "median lead\nlags"]
    lines = []
    for name, run in runs.items():
        w: EventWarning | None = run["warning"]
        cells = ["-"] * 5
        if w is not None:
            cells = [f"{w.area[k]:.2f}" for k in (0, 5, 10)]
            cells += [f"{100 * w.detected[0]:.0f} %", f"{np.median(w.lead):g}"]
        lines.append(
            [
                name,
                f"{run['refused']}",
                f"{run['broken']}",
                f"{len(run['before'])}",
                *cells,
            ]
        )
    print(format_columns(header, lines), end="\n\n")


def draw(
    rows: dict[str, dict[str, Reliability]],
    runs: dict[str, dict[str, Any]],
    path: Path,
    title: str,
) -> None:
    """Draw the reliability of each element, and the spread before refusals."""
    figure = Figure(figsize=(11.0, 7.0), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
    panels = figure.subplots(2, 2)
    for index, name in enumerate(QUANTITIES):
        panel = panels[0, index]
        styled = zip(rows.items(), cycle(STYLES), strict=False)
        for (symbol, quantities), (color, dashes) in styled:
            r = quantities[name]
            panel.errorbar(
                r.predicted,
                r.found,
                r.found_error,
                color=color,
                ls=dashes,
                marker="o",
                ms=3,
                lw=1.2,
                label=f"{symbol}: slope {r.slope:.2f}, error/spread {r.ratio:.2f}",
            )
        ends = [
            min(q[name].predicted[0] for q in rows.values()),
            max(q[name].predicted[-1] for q in rows.values()),
        ]
        panel.plot(ends, ends, "k:", lw=1.0, label="calibrated")
        panel.set(xscale="log", yscale="log", title=f"one-lag {name}")
        panel.set_xlabel(f"predicted spread, {UNITS[index]}")
        panel.set_ylabel(f"true error, {UNITS[index]}")
        panel.legend(frameon=False, fontsize=8)
        _label_decades(panel.xaxis)
        _label_decades(panel.yaxis)
    traces, curves = panels[1]
    styled = zip(runs.items(), cycle(STYLES), strict=False)
    for (name, run), (color, dashes) in styled:
        w = run["warning"]
        calm = run["calm"]
        traces.axhline(np.median(calm), color=color, lw=0.8, ls=":")
        if w is None:
            continue
        times = -np.arange(run["before"].shape[1])
        low, middle, high = np.quantile(run["before"], [0.25, 0.5, 0.75], axis=0)
        style = {"color": color, "ls": dashes, "lw": 1.6}
        traces.plot(times, middle, **style, label=f"{name}, before refusal")
        traces.fill_between(times, low, high, color=color, alpha=0.2, lw=0)
        levels = np.sort(np.concatenate([calm, run["before"][:, 0]]))[::-1]
        false = 1 - np.searchsorted(np.sort(calm), levels) / len(calm)
        hits = 1 - np.searchsorted(np.sort(run["before"][:, 0]), levels) / len(
            run["before"]
        )
        label = f"{name}: area {w.area[0]:.2f} ({w.n_events} refusals)"
        curves.plot(false, hits, **style, label=label)
    traces.set(title="Largest spread of a molecule (dotted: median far from refusals)")
    traces.set(xlabel="lags before the refused one", ylabel="ordinary spreads")
    traces.set_yscale("log")
    _label_decades(traces.yaxis)
    traces.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.plot([0, 1], [0, 1], "k:", lw=1.0)
    curves.set(title="Refused lags told from ordinary ones", xlabel="false alarms")
    curves.set(ylabel="refusals found", xlim=(0, 1), ylim=(0, 1.02))
    for panel in (traces, curves):
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False, fontsize=8)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _label_decades(axis: Axis) -> None:
    """Label 1, 2 and 5 of each decade: matplotlib labels all or one."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def without_values(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Replace the values of ordinary lags by their quantiles."""
    levels = (0.5, 0.9, 0.99, 0.999)
    kept = {}
    for name, run in runs.items():
        calm = run["calm"]
        kept[name] = {k: v for k, v in run.items() if k != "calm"} | {
            "ordinary_lags": len(calm),
            "ordinary_quantiles": {
                str(level): float(np.quantile(calm, level)) for level in levels
            }
            if len(calm)
            else {},
        }
    return kept
