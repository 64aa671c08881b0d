"""Command line: `python -m prffn reports`, `overview`, `html`, `bench`, `data`."""

import argparse
import os
import sys
import time
from pathlib import Path

from prffn.config import PROFILES, unknown
from prffn.paths import RECORDED, TEXT_PROGRESS_VARIABLE, checkout, data_root, reports_root

BENCHMARKS = ("contrast", "inference")


def main(arguments: list[str] | None = None) -> int:
    """Runs a command. Returns the exit status: 0, or 1 with the error in one line."""
    parser = argparse.ArgumentParser(prog="python -m prffn", description=sys.modules["prffn"].__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    reports = commands.add_parser("reports", help="run the notebooks and write reports/<profile>/")
    reports.add_argument("notebooks", nargs="*", help="names such as table5_region_size; all of them if none is given")
    reports.add_argument("--profile", default="quick", choices=sorted(PROFILES))
    reports.add_argument("--seeds", type=int, help="how many seeds; the profile's own number if not given")
    reports.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    reports.add_argument("--retrain", action="store_true", help="train all runs afresh")

    for name, what in {
        "overview": "write the page of all claims: reports/README.md, or reports/<profile>/README.md",
        "html": "write the reports as web pages that need no network: reports/<profile>/html/",
    }.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("--profile", default=RECORDED, choices=sorted(PROFILES))

    bench = commands.add_parser("bench", help="time and memory, written to reports/bench/")
    bench.add_argument("only", nargs="?", choices=BENCHMARKS, help="the cost of L_contr, or PRFFN's forward; else both")
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    bench.add_argument("--turns", type=int, default=3, help="how often each case is measured")
    bench.add_argument(
        "--batch", type=int, default=16, help="of `contrast`: patches of 48 x 48; fewer where memory is short"
    )
    bench.add_argument("--size", type=int, nargs=2, default=(120, 160), metavar=("HEIGHT", "WIDTH"),
                       help="of `inference`: the LR image, in pixels")  # fmt: skip

    data = commands.add_parser("data", help="list the image sets, or download them")
    data_commands = data.add_subparsers(dest="data_command", required=True)
    data_commands.add_parser("list", help="which sets there are, which are at hand")
    get = data_commands.add_parser("get", help="download official archives, check and unpack them")
    get.add_argument("sets", nargs="+", metavar="SET")

    options = parser.parse_args(arguments)
    try:
        if options.command == "reports":
            return run_notebooks(options)
        if options.command in ("overview", "html"):
            return write_pages(options.profile, only=options.command)
        if options.command == "bench":
            return run_benchmarks(options)
        return list_sets() if options.data_command == "list" else get_sets(options.sets)
    except (ValueError, OSError) as error:
        print(f"prffn: {error}", file=sys.stderr)
        return 1


def run_benchmarks(options: argparse.Namespace) -> int:
    """Runs the one that is asked for, or all, and prints their tables."""
    from prffn import bench, bench_inference

    for name in BENCHMARKS if options.only is None else (options.only,):
        if name == "contrast":
            tables = bench.run(options.device, options.turns, options.batch)
        else:
            tables = bench_inference.run(options.device, options.turns, tuple(options.size))
        print(*(table.to_string() for table in tables.values()), sep="\n\n", end="\n\n")
    return 0


def run_notebooks(options: argparse.Namespace) -> int:
    """Runs notebooks headlessly; the executed copies go beside the reports."""
    import papermill

    available = {path.stem: path for path in sorted((checkout() / "notebooks").glob("*.ipynb"))}
    for name in options.notebooks:
        if name not in available:
            raise ValueError(unknown("notebook", name, available))
    parameters = {"profile": options.profile, "device": options.device, "retrain": options.retrain}
    if options.seeds is not None:
        parameters["seeds"] = options.seeds
    folder = reports_root() / options.profile
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[TEXT_PROGRESS_VARIABLE] = "1"  # the notebooks' kernels inherit it: their bars reach this terminal
    for name in options.notebooks or available:
        began = time.perf_counter()
        print(f"{name}: profile {options.profile}", flush=True)
        try:
            papermill.execute_notebook(
                str(available[name]), str(folder / f"{name}.ipynb"), parameters=parameters, kernel_name="python3",
                progress_bar=False, stderr_file=sys.stderr,
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            raise ValueError(f"{name} stopped: {error.ename}: {error.evalue}") from error
        print(f"{name}: done in {time.perf_counter() - began:.0f} s, see {folder / name}.md", flush=True)
    return write_pages(options.profile)


def write_pages(profile: str, only: str | None = None) -> int:
    """Writes the overview of a profile's reports and the web pages, or only one of them: "overview" or "html"."""
    from prffn.overview import write_overview
    from prffn.site import write_site

    if only != "html":
        print(f"overview: {write_overview(profile)}")
    if only != "overview":
        print(f"web pages: {write_site(profile)}")
    return 0


def list_sets() -> int:
    """Prints each image set and whether it is at hand."""
    from prffn.data import EMBEDDED_SETS, KNOWN_SETS

    print(f"data root: {data_root()}")
    for name in EMBEDDED_SETS:
        print(f"  {name:15} at hand (inside the scikit-image wheel)")
    for name, source in KNOWN_SETS.items():
        there = (data_root() / source.folder).is_dir()
        how = "at hand" if there else "missing: ask for it at manga109.org" if name == "Manga109" else "missing"
        print(f"  {name:15} {how}")
    return 0


def get_sets(names: list[str]) -> int:
    """Downloads image sets."""
    from prffn.download import get

    for name in names:
        print(f"{name}: {Path(get(name))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
