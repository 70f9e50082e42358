"""
Inject faults: kill runs at random moments, damage files at random places.

- *Kills*: a run of two replicas with checkpoints, DCD files and a table is killed
  (signal 9) at random moments and restarted. Each restart has to go on from the
  checkpoint, each DCD to be readable to its last whole frame, and the whole to equal an
  undisturbed run bit for bit. With a stub that costs next to nothing, where most kills
  meet a file being written; with the bundled model; and with so many replicas of the
  stub that OpenMM's DCDReporter writes a frame in pieces, which a kill may cut.
- *Damage*: model files, the metadata, code and pickles inside them, integrator XML and
  checkpoints are changed at random, and used. Each has to give an error that says what
  is wrong, or, where the change is harmless, the same result; and never a crash, a
  hang, another result, or a run of code from a file.

Prints what was found; ``--output`` writes JSON:

    python benchmarks/fault_injection.py --output results.json
"""

import argparse
import hashlib
import json
import os
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import openmm
import torch
from command_line import output_file, write_results
from fault_kills import kill_and_restart
from fault_mutations import CANARY, make_case
from machine import describe_run

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system
from openmm_diffmd.integrator.checkpoints import load_checkpoint
from openmm_diffmd.testing import RememberingModel, save_stub_model

LIMIT_SECONDS = 60
LIMIT_MEMORY = 16 * 2**30
LAGS = 3
WIDE_REPLICAS, WIDE_LAGS = 300, 400
"""Coordinates of a frame, 10 kB each, do not fit into Python's buffer of a file."""
CLEAR = (ValueError, FileNotFoundError, openmm.OpenMMException)
USER_SETTINGS = (
    "temperature",
    "friction",
    "randomSeed",
    "sampler",
    "numSamplingSteps",
    "conserveAngularMomentum",
    "moleculesPerBatch",
)
"""Attributes of the XML that change the result, and are the user's to choose."""
OPENMM_SAYS = ("Unsupported object type",)
"""What OpenMM raises as a ValueError for XML of something else."""
GOOD = ("clear error", "same result", "another valid file")


def use(folder: Path, through: str) -> str:
    """Load a set of files as a user would, run some lags, and digest the result."""
    xml = (folder / "integrator.xml").read_bytes()
    if through == "python":
        model = load_model(folder / "model.pt")
        topology, positions = model.example()
        integrator = DiffusionIntegrator(model, topology)
        integrator.setRandomNumberSeed(5)
        temperature = model.temperature
    else:
        integrator = openmm.XmlSerializer.deserialize(xml.decode(errors="replace"))
        model = load_model(folder.parent / "originals" / "model.pt")
        topology, positions = model.example()
        temperature = model.temperature
    context = openmm.Context(
        create_system(topology),
        integrator,
        openmm.Platform.getPlatformByName("Reference"),
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(temperature, 1)
    if through == "xml":
        try:
            load_checkpoint(context, folder / "run.chk")
        except UnicodeDecodeError as error:
            # OpenMM's message quotes the file: bytes that are no text.
            raise openmm.OpenMMException(str(error)) from error
    integrator.step(LAGS)
    state = context.getState(positions=True, velocities=True)
    numbers = [
        getattr(state, name)(asNumpy=True)._value.tobytes()  # noqa: SLF001
        for name in ("getPositions", "getVelocities")
    ]
    return hashlib.sha256(b"".join(numbers)).hexdigest()


def make_originals(folder: Path, model_path: str) -> None:
    """Write an undamaged model, integrator XML and checkpoint."""
    folder.mkdir()
    (folder / "model.pt").write_bytes(load_model(model_path).path.read_bytes())
    model = load_model(folder / "model.pt")
    topology, positions = model.example()
    integrator = DiffusionIntegrator(model, topology)
    integrator.setRandomNumberSeed(5)
    context = openmm.Context(
        create_system(topology),
        integrator,
        openmm.Platform.getPlatformByName("Reference"),
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(model.temperature, 1)
    integrator.step(LAGS)
    (folder / "integrator.xml").write_text(openmm.XmlSerializer.serialize(integrator))
    (folder / "run.chk").write_bytes(context.createCheckpoint())


def is_clear(error: Exception) -> bool:
    """Whether a message says what was found, and what was expected or to be done."""
    if isinstance(error, openmm.OpenMMException) or str(error) in OPENMM_SAYS:
        return True
    return "found" in str(error) and any(s in str(error) for s in ("expected", "; "))


def use_apart(folder: Path, through: str) -> dict[str, str]:
    """Use files in a process of its own, which may crash or hang."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_MEMORY, LIMIT_MEMORY))
        signal.alarm(LIMIT_SECONDS)
        try:
            found = {"outcome": "result", "text": use(folder, through)}
        except CLEAR as error:
            found = {"outcome": "clear error" if is_clear(error) else "unclear error"}
            found["text"] = f"{type(error).__name__}: {error}"
        except BaseException as error:  # noqa: BLE001
            found = {"outcome": "unclear error"}
            found["text"] = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(found).encode()[:60000])
        # No exit handlers: the parent's are not this process's to run.
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGALRM:
        return {"outcome": "hang", "text": f"more than {LIMIT_SECONDS} s"}
    if status:
        return {"outcome": "crash", "text": f"status {status}"}
    return dict(json.loads(text))


def is_valid(case: dict[str, str], folder: Path, originals: Path) -> bool:
    """Whether a file that was changed and accepted is one that a user may write."""
    if case["kind"].startswith("XML"):
        old, new = (
            list(ET.parse(place / "integrator.xml").iter())
            for place in (originals, folder)
        )
        changed = {
            name
            for one, other in zip(old, new, strict=True)
            for name in one.attrib.keys() | other.attrib.keys()
            if one.get(name) != other.get(name) and name != "modelFile"
        }
        return changed <= set(USER_SETTINGS)
    # The archive was written anew with right checksums, and passed every check: a model
    # file in its own right. The XML holds the hash of the other.
    return case["kind"] in ("metadata", "code and pickles")


def damage_and_use(
    folder: Path, model_path: str, count: int, seed: int
) -> dict[str, Any]:
    """Damage files, use each, and sort what happens."""
    originals = folder / "originals"
    make_originals(originals, model_path)
    expected = {}
    for through in ("python", "xml"):
        undamaged = use_apart(originals, through)
        if undamaged["outcome"] != "result":
            raise RuntimeError(f"the undamaged files fail: {undamaged['text']}")
        expected[through] = undamaged["text"]
    outcomes: dict[str, Counter[str]] = {}
    problems, messages = [], []
    for index in range(count):
        case_folder = folder / f"case_{index}"
        case_folder.mkdir()
        case = make_case(case_folder, originals, index, seed)
        found = use_apart(case_folder, case["through"])
        outcome = found["outcome"]
        if outcome == "result":
            outcome = "another result"
            if found["text"] == expected[case["through"]]:
                outcome = "same result"
            elif is_valid(case, case_folder, originals):
                outcome = "another valid file"
        if (case_folder / CANARY).exists():
            outcome = "code was run"
        outcomes.setdefault(case["kind"], Counter())[outcome] += 1
        record = {"index": index, **case, "outcome": outcome, "text": found["text"]}
        (messages if outcome in GOOD else problems).append(record)
    return {
        "model": Path(model_path).stem,
        "cases": count,
        "seed": seed,
        "outcomes": {kind: dict(counts) for kind, counts in outcomes.items()},
        "problems": problems,
        "messages": messages,
    }


def print_kills(found: dict[str, Any]) -> None:
    """Print what kills did, and each problem in full."""
    print({key: found[key] for key in found if key != "problems"})
    for problem in found["problems"]:
        print(f"  PROBLEM {problem}")


def print_damage(found: dict[str, Any]) -> None:
    """Print what damage did, and each problem in full."""
    for kind, counts in found["outcomes"].items():
        row = ", ".join(f"{number} {name}" for name, number in counts.items())
        print(f"  {kind:24}{row}")
    for problem in found["problems"]:
        print(f"  PROBLEM {problem}")


def main(words: Sequence[str] | None = None) -> int:
    """Inject faults; 1 if something went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="*", default=["ethanol"], help="beside a stub")
    parser.add_argument("--kills", type=int, default=50, help="in all")
    # Some ten kills a run: stub 0.5 ms a lag with its files, network 8 ms.
    parser.add_argument(
        "--lags", type=int, nargs=2, default=[10_000, 600], help="of a run: stub, model"
    )
    parser.add_argument(
        "--wide-kills", type=int, default=20, help="and of many replicas"
    )
    parser.add_argument("--mutations", type=int, default=500, help="files, in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=output_file, help="JSON file to write")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    kills, damage = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stub = save_stub_model(folder / "stub.pt", RememberingModel(friction=20.0))
        models = [str(stub), *arguments.model]
        for index, model in enumerate(models):
            lags = arguments.lags[min(index, 1)]
            place = folder / f"kills_{index}"
            place.mkdir()
            if count := arguments.kills // len(models):
                found = kill_and_restart(place, model, lags, count, arguments.seed)
                kills.append(found)
                print_kills(found)
        if arguments.kills and (count := arguments.wide_kills):
            place = folder / "kills_wide"
            place.mkdir()
            found = kill_and_restart(
                place, models[0], WIDE_LAGS, count, arguments.seed, WIDE_REPLICAS
            )
            kills.append(found)
            print_kills(found)
        for index, model in enumerate(models):
            place = folder / f"damage_{index}"
            place.mkdir()
            count = arguments.mutations // len(models)
            if not count:
                continue
            found = damage_and_use(place, model, count, arguments.seed)
            damage.append(found)
            print(f"{count} damaged files of {Path(model).stem}")
            print_damage(found)
    if arguments.output:
        result = {
            **describe_run(__file__),
            "kills": kills,
            "damage": damage,
        }
        write_results(arguments.output, result)
    bad = sum(len(found["problems"]) for found in [*kills, *damage])
    print("no problem" if bad == 0 else f"{bad} PROBLEMS")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
