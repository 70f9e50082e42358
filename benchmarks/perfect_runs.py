"""
What the goals say of perfect runs: pieces of a reference beside the rest of it.

Pieces are taken from the reference at random, as many and as long as the replicas of a
rollout, and judged beside what is left as a rollout is beside the whole. They are of
the same dynamics, so that a goal that they miss is missed by chance: this is how far
the lines *undecided* must reach. With ``--swap`` the rest is the run and the pieces are
its reference, as where long rollouts stand beside a short one. Writes
``perfect_runs.json``:

    python benchmarks/perfect_runs.py
    python benchmarks/perfect_runs.py --swap --pieces 5
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bundled_reference import BUNDLED_REFERENCE
from command_line import one_line_errors, whole_frames, write_results
from machine import describe_run
from tqdm import tqdm

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.figures import Figures
from openmm_diffmd.analysis.goals import judge
from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.analysis.measure import measure, prepare_reference
from openmm_diffmd.analysis.report import format_columns
from openmm_diffmd.checks import above, at_least
from openmm_diffmd.outputs import make_folder

VERDICTS = {True: "met", None: "undecided", False: "missed"}


def take_pieces(
    reference: Ensemble, count: int, length: float, generator: np.random.Generator
) -> tuple[Ensemble, Ensemble]:
    """
    Take pieces of a reference at random.

    Parameters
    ----------
    reference : Ensemble
        The reference.
    count : int
        Pieces.
    length : float
        Length of each, ps.
    generator : numpy.random.Generator
        Of the choice.

    Returns
    -------
    pieces, rest : Ensemble
        The pieces, each a replica, and the frames between them.

    Raises
    ------
    ValueError
        If less than half of the reference would be left.
    """
    frames = round(length / reference.frame_interval)
    places = [
        (replica, start)
        for replica, positions in enumerate(reference.positions)
        for start in range(0, len(positions) - frames + 1, frames)
    ]
    if 2 * count * frames > reference.n_frames or count > len(places):
        raise ValueError(
            f"found a reference of {reference.length:g} ps, expected at least twice "
            f"the {count} pieces of {length:g} ps in unbroken runs: take fewer or "
            "shorter ones"
        )
    taken = [
        places[index]
        for index in sorted(generator.choice(len(places), count, replace=False))
    ]
    gaps = []
    for replica, positions in enumerate(reference.positions):
        starts = [start for r, start in taken if r == replica]
        edges = [0, *(e for s in starts for e in (s, s + frames)), len(positions)]
        gaps += [(replica, *edge) for edge in zip(edges[::2], edges[1::2], strict=True)]
    return (
        _parts(reference, [(r, start, start + frames) for r, start in taken]),
        _parts(reference, [gap for gap in gaps if gap[2] > gap[1]]),
    )


def _parts(ensemble: Ensemble, parts: Sequence[tuple[int, int, int]]) -> Ensemble:
    """Make each part (replica, start, stop) a replica."""
    velocities = ensemble.velocities
    return replace(
        ensemble,
        positions=[ensemble.positions[r][a:b] for r, a, b in parts],
        velocities=None
        if velocities is None
        else [velocities[r][a:b] for r, a, b in parts],
    )


def ratios_to_sampling(found: Figures) -> dict[str, float]:
    """
    Say how many times what sampling is estimated to explain was found.

    Parameters
    ----------
    found : Figures
        Of a perfect run.

    Returns
    -------
    dict of str to float
        Of the error of h(r), mean divergences, and what the spectra's overlap lacks.
    """
    ratios = {}
    if found.h_r_error is not None and found.h_r_expected:
        ratios["h(r) error"] = found.h_r_error / found.h_r_expected
    for kind in found.divergences or {}:
        ours, expected = (
            found.mean_divergence(kind),
            found.mean_expected_divergence(kind),
        )
        if ours is not None and expected:
            ratios[f"divergence of {kind}"] = ours / expected
    if found.spectrum_overlap is not None and found.spectrum_expected is not None:
        lacking = 1.0 - found.spectrum_expected
        ratios["lacking overlap"] = (1.0 - found.spectrum_overlap) / lacking
    return ratios


def judge_pieces(
    reference: Ensemble,
    temperature: float,
    draws: int,
    count: int,
    length: float,
    seed: int,
    swap: bool = False,
) -> tuple[dict[str, Counter[str]], dict[str, list[float]]]:
    """
    Judge perfect runs.

    Parameters
    ----------
    reference : Ensemble
        The reference.
    temperature : float
        Temperature of its heat bath, K.
    draws : int
        Perfect runs.
    count : int
        Pieces of each.
    length : float
        Length of a piece, ps.
    seed : int
        Seed of the choice of pieces.
    swap : bool
        Judge the rest beside the pieces.

    Returns
    -------
    verdicts : dict of str to Counter
        How often each goal was met, undecided and missed.
    ratios : dict of str to list of float
        `ratios_to_sampling` of each run.
    """
    generator = np.random.default_rng(seed)
    verdicts: dict[str, Counter[str]] = {}
    ratios: dict[str, list[float]] = {}
    for _ in tqdm(range(draws), unit="run", disable=None):
        run, beside = take_pieces(reference, count, length, generator)
        if swap:
            run, beside = beside, run
        prepared = prepare_reference(beside, temperature)
        found = measure("run", run, prepared).figures
        for goal in judge(found, prepared.figures):
            verdicts.setdefault(goal.name, Counter())[VERDICTS[goal.passed]] += 1
        for name, ratio in ratios_to_sampling(found).items():
            ratios.setdefault(name, []).append(ratio)
    return verdicts, ratios


def main(words: Sequence[str] | None = None) -> None:
    """Judge, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, default=BUNDLED_REFERENCE)
    parser.add_argument("--draws", type=int, default=40, help="perfect runs")
    parser.add_argument("--pieces", type=int, default=16, help="of each run")
    parser.add_argument("--length-ps", type=float, default=20.0, help="of a piece")
    parser.add_argument(
        "--swap", action="store_true", help="judge the rest beside the pieces"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("rollout"))
    arguments = parser.parse_args(words)
    with one_line_errors("perfect_runs"):
        at_least(1, draws=arguments.draws, pieces=arguments.pieces)
        at_least(0, seed=arguments.seed)
        above(0, length_ps=arguments.length_ps)
        reference, provenance = load_reference(arguments.reference)
        if "temperature_K" not in provenance:
            raise ValueError(
                f"found {arguments.reference} without the temperature of its heat "
                "bath, expected a file of openmm-diffmd reference"
            )
        length_ps = whole_frames(
            arguments.length_ps, arguments.length_ps, reference.frame_interval
        )
        make_folder(arguments.output)
        verdicts, ratios = judge_pieces(
            reference,
            float(provenance["temperature_K"]),
            arguments.draws,
            arguments.pieces,
            length_ps,
            arguments.seed,
            arguments.swap,
        )
        pieces = f"{arguments.pieces} pieces of {arguments.length_ps:g} ps"
        rest = f"the rest of {reference.length:g} ps"
        run, beside = (rest, pieces) if arguments.swap else (pieces, rest)
        print(f"{arguments.draws} x {run}, each beside {beside}\n")
        names = list(VERDICTS.values())
        lines = [[g, *(str(n[v]) for v in names)] for g, n in verdicts.items()]
        print(format_columns(["goal", *names], lines))
        lines = [
            [name, *(f"{np.quantile(r, q):.2f}" for q in (0.0, 0.5, 1.0))]
            for name, r in ratios.items()
        ]
        header = ["times what sampling explains", "least", "median", "most"]
        print(f"\n{format_columns(header, lines)}")
        written: dict[str, Any] = {
            **describe_run(__file__),
            "seed": arguments.seed,
            "draws": arguments.draws,
            "pieces": arguments.pieces,
            "length_ps": arguments.length_ps,
            "swap": arguments.swap,
            "reference_ps": reference.length,
            "verdicts": verdicts,
            "ratios": ratios,
        }
        path = arguments.output / "perfect_runs.json"
        write_results(path, written)
        print(f"\nIn {arguments.output}: perfect_runs.json")


if __name__ == "__main__":
    main()
