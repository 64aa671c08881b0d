"""The command line, `prffn` or `python -m prffn`: `--help` lists the commands."""

import argparse
import contextlib
import io
import os
import sys
from pathlib import Path

from prffn.config import PROFILES
from prffn.files import RECORDED, TEXT_PROGRESS_VARIABLE, checkout, data_root, unknown, user_path, whole_number


def main(arguments: list[str] | None = None) -> int:
    """Runs a command. Returns the exit status: 0, or 1 with the error in one line."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a console of few letters, as cp1252, gets the others as \u1234
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        _check_processes(options)
        status = _run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads the output, such as `head`, wants no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return 0
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"prffn: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "upscale":
        from prffn.apps import upscale

        return upscale.run(options)
    if options.command == "check":
        from prffn.apps import check

        return check.run(options.device)
    if options.command == "data":
        return list_sets() if options.data_command == "list" else get_sets(options.sets)
    if options.command in ("overview", "html"):
        return write_pages(options.profile, only=options.command)
    commands = {
        "reports": run_notebooks, "train": train_runs, "plan": plan_runs, "bench": run_benchmarks,
        "ship": train_shipped,
    }  # fmt: skip
    return commands[options.command](options)


def _parser() -> argparse.ArgumentParser:
    program = "prffn" if Path(sys.argv[0]).stem == "prffn" else "python -m prffn"
    parser = argparse.ArgumentParser(prog=program, description=sys.modules["prffn"].__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    reports = commands.add_parser("reports", help="run the notebooks and write reports/<profile>/")
    reports.add_argument("--retrain", action="store_true", help="train all runs again")

    train = commands.add_parser("train", help="train and record what the notebooks need, without their reports; under "
                                "torchrun, each run by several processes")  # fmt: skip
    train.add_argument("--label", action="append", help="only the runs of this label; may be given several times")

    plan = commands.add_parser("plan", help="a dry run: the runs of a profile, and what they take on this device")
    plan.add_argument("--gpus", type=int, default=1, help="on how many such devices the runs are trained")
    plan.add_argument("--step-seconds", type=float, help="of a device that is not here; measured if not given")

    for command in (reports, train, plan):
        command.add_argument("notebooks", nargs="*", help="names such as table5_region_size, or the path of another "
                             "notebook, such as ./mine.ipynb; all of the kit's if none is given. The cells of a "
                             "notebook are code and are executed: give only files that you trust")  # fmt: skip
        command.add_argument("--profile", default="quick", choices=sorted(PROFILES))
        command.add_argument("--seeds", type=int, help="how many seeds; the profile's own number if not given")

    for command in (reports, train):
        where = command.add_mutually_exclusive_group()
        where.add_argument("--scheduler", metavar="ADDRESS", help="of dask: its workers train, not this process")
        where.add_argument("--workers", type=int, metavar="N", help="train on N processes of this machine, on a "
                           "GPU each where there are GPUs")  # fmt: skip

    for name, what in {
        "overview": "write the page of all claims: reports/README.md, or reports/<profile>/README.md",
        "html": "write the reports as web pages that need no network: reports/<profile>/html/",
    }.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("--profile", default=RECORDED, choices=sorted(PROFILES))

    bench = commands.add_parser("bench", help="time and memory of L_contr in every implementation: reports/bench/")
    bench.add_argument("--rounds", type=int, default=5, help="how often each case is timed")
    bench.add_argument("--batch", type=int, default=16, help="patches of 48 x 48; fewer where memory is short")

    check = commands.add_parser("check", help="prove every path of a device in at most 8 minutes: reports/check/")

    data = commands.add_parser("data", help="list the image sets, or download them")
    data_commands = data.add_subparsers(dest="data_command", required=True)
    data_commands.add_parser("list", help="which sets there are, which are downloaded")
    get = data_commands.add_parser("get", help="download official archives, check and unpack them")
    get.add_argument("sets", nargs="+", metavar="SET")

    ship = commands.add_parser("ship", help="train the small networks of the package, and put them into it")
    ship.add_argument("scales", type=int, nargs="*", default=[2, 3, 4], help="2, 3, 4; all of them if none is given")
    ship.add_argument("--retrain", action="store_true", help="train them again")

    upscale = commands.add_parser("upscale", help="upscale photographs, from files or whole folders, into files")
    upscale.add_argument("sources", nargs="+", type=Path, metavar="IMAGE", help="an image, or a folder of images")
    upscale.add_argument("--scale", type=int, choices=(2, 3, 4), help="3 if not given, or what the weights are for")
    upscale.add_argument("-o", "--output", type=Path, help="a file for one image, or a folder; else beside the input")
    upscale.add_argument("--weights", type=Path, help="of another network; else the small PRFFN of this package")
    upscale.add_argument("--rgb-range", type=float, help="of the weights, 255 or 1, where their file does not tell")
    upscale.add_argument("--res-scale", type=float, help="of an EDSR's weights, where its size is no published one")
    upscale.add_argument("--tile", type=int, help="side of a tile in pixels of the input, 256 if not given: a "
                         "smaller one needs less memory and more time")  # fmt: skip
    upscale.add_argument("--overwrite", action="store_true", help="replace outputs that are there already")

    for command in (reports, train, plan, bench, check, ship, upscale):
        command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    return parser


def _check_processes(options: argparse.Namespace) -> None:
    """Raises ValueError where torchrun has started several processes that would each do the same."""
    if "WORLD_SIZE" not in os.environ:
        return
    from prffn.training.parallel import world_size  # for those who have torchrun: it imports torch

    if (count := world_size()) == 1:
        return
    if options.command != "train":
        command = options.command
        raise ValueError(f"{count} processes of torchrun would do all of `{command}` each: run `{command}` without it")
    if options.scheduler is not None or options.workers is not None:
        raise ValueError("torchrun or workers train a run: leave out torchrun, or --scheduler and --workers")


def train_runs(options: argparse.Namespace) -> int:
    """Trains what the notebooks lack: here, with the other processes of torchrun, or on a scheduler's workers."""
    from prffn.study import trainings

    notebooks = find_notebooks(options.notebooks)
    os.environ[TEXT_PROGRESS_VARIABLE] = "1"
    with _scheduler(options) as scheduler:
        trainings.train(
            notebooks, profile=options.profile, device=options.device, seeds=options.seeds, labels=options.label,
            scheduler=scheduler,
        )  # fmt: skip
    return 0


def train_shipped(options: argparse.Namespace) -> int:
    """Trains the networks of the package, and prints their figures."""
    from prffn.apps.ship import ship

    for scale, record, path in ship(options.scales, device=options.device, retrain=options.retrain):
        means = (f"{sum(e['psnr_y']) / len(e['psnr_y']):.2f} dB on {name}" for name, e in record["evaluation"].items())
        print(f"x{scale}: {', '.join(means)}; {path}", flush=True)
    return 0


def run_benchmarks(options: argparse.Namespace) -> int:
    """Measures what L_contr costs, and prints the table."""
    from prffn.reporting import bench

    for name in ("rounds", "batch"):
        whole_number(f"--{name}", getattr(options, name), 1)
    print(bench.run(options.device, options.rounds, options.batch).to_string())
    return 0


def run_notebooks(options: argparse.Namespace) -> int:
    """Runs notebooks headlessly; the executed copies go beside the reports."""
    from prffn.apps import headless

    notebooks = find_notebooks(options.notebooks)
    parameters = {"profile": options.profile, "device": options.device}
    if options.seeds is not None:
        parameters["seeds"] = options.seeds
    os.environ[TEXT_PROGRESS_VARIABLE] = "1"  # the notebooks' kernels inherit it: their bars reach this terminal
    with _scheduler(options) as scheduler:
        headless.run(notebooks, parameters, retrain=options.retrain, scheduler=scheduler)
    return write_pages(options.profile)


def _scheduler(options: argparse.Namespace) -> contextlib.AbstractContextManager[str | None]:
    """The address of the scheduler that is asked for: a given one, one that is started here, or none."""
    if options.workers is None and options.scheduler is None:
        return contextlib.nullcontext()
    from prffn.study.cluster import check_address, local_workers

    if options.workers is not None:
        return local_workers(options.workers, options.device)
    check_address(options.scheduler)
    return contextlib.nullcontext(options.scheduler)


def find_notebooks(names: list[str]) -> dict[str, Path]:
    """The notebooks of these names in the kit's notebooks/, all if there are none, or of these paths, by name.

    They will be executed. So a name finds no file of the current folder, and no link in notebooks/ that leads out of
    it; a path, which has a slash, finds any notebook. Raises ValueError for what is neither, or two of one name.
    """
    folder = (checkout() / "notebooks").resolve()
    available = {path.stem: path for path in sorted(folder.glob("*.ipynb")) if path.resolve().parent == folder}
    if not available and not names:
        raise ValueError(f'no notebooks in {folder}: in a checkout of the project, pip install -e ".[kit]"')
    found: dict[str, Path] = {}
    for name in names or available:
        path = user_path(name) if Path(name).name != name else available.get(name.removesuffix(".ipynb"))
        if path is None or path.suffix != ".ipynb" or not path.is_file():
            raise ValueError(unknown("notebook", name, available) + ", or the path of another, such as ./mine.ipynb")
        if not found.setdefault(path.stem, path).samefile(path):
            raise ValueError(f"two notebooks have the name {path.stem}: {found[path.stem]} and {path}; rename one")
    return found


def plan_runs(options: argparse.Namespace) -> int:
    """Prints what the runs of the notebooks take, and writes it to reports/<profile>/plan.csv."""
    from prffn.study import plan

    if options.gpus < 1:
        raise ValueError(f"--gpus must be a whole number, at least 1, got {options.gpus}")
    if options.step_seconds is not None and not 0 < options.step_seconds < float("inf"):
        raise ValueError(f"--step-seconds must be a positive number, got {options.step_seconds}")
    notebooks = find_notebooks(options.notebooks)
    os.environ[TEXT_PROGRESS_VARIABLE] = "1"
    given = {"device": options.device, "seeds": options.seeds, "step_seconds": options.step_seconds}
    print(plan.run(notebooks, options.profile, gpus=options.gpus, **given))
    return 0


def write_pages(profile: str, only: str | None = None) -> int:
    """Writes the overview of a profile's reports and the web pages, or only one of them: "overview" or "html"."""
    from prffn.reporting.html import write_site
    from prffn.reporting.overview import write_overview

    if only != "html":
        print(f"overview: {write_overview(profile)}")
    if only != "overview":
        print(f"web pages: {write_site(profile)}")
    return 0


def list_sets() -> int:
    """Prints each image set and whether it is downloaded."""
    from prffn.data.drawn import DRAWN_SETS
    from prffn.data.images import EMBEDDED_SETS, KNOWN_SETS

    print(f"data root: {data_root()}")
    for name in EMBEDDED_SETS:
        print(f"  {name:15} there (inside the scikit-image wheel)")
    for name in DRAWN_SETS:
        print(f"  {name:15} there (flat colours and hard edges, drawn by code)")
    for name, source in KNOWN_SETS.items():
        there = (data_root() / source.folder).is_dir()
        how = "there" if there else "missing: ask for it at manga109.org" if name == "Manga109" else "missing"
        print(f"  {name:15} {how}")
    return 0


def get_sets(names: list[str]) -> int:
    """Downloads image sets."""
    from prffn.data.download import get

    for name in names:
        print(f"{name}: {Path(get(name))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
