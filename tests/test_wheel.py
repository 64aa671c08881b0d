"""What `pip install .` brings: the wheel, what runs without the extras, and the error that names a missing one."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHECKOUT
from packaging.requirements import Requirement
from PIL import Image
from test_project import EXTRAS, PROJECT, asked

import prffn
from prffn.files import CACHE_VARIABLE

BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"

IMPORTED_AS = {"distributed": ("distributed", "dask"), "ipykernel": ("ipykernel", "IPython")}
"""Modules of the packages whose name is not the module's, or that bring another that is used here."""

MISSING = [module for r in asked("kit", "cluster") for module in IMPORTED_AS.get(r.name, (r.name,))]
"""The modules that `pip install .` alone does not bring."""


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files that git knows, from the root of the checkout."""
    if not (CHECKOUT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no git checkout: which files belong to the project is not known")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (CHECKOUT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tracked, tmp_path_factory) -> zipfile.ZipFile:
    """Built, without a network, from a folder with the tracked files and nothing else."""
    folder, made = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, folder / name)
    done = subprocess.run([sys.executable, "-c", BUILD, str(made)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = made.glob("prffn-*-py3-none-any.whl")
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(wheel.read(name))


def test_the_wheel_is_the_package_and_nothing_else(wheel, tracked):
    """Weights, printed numbers, the C source, the drawing are in it; tests, notebooks and reports are not."""
    content = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert content == {name for name in tracked if name.startswith("prffn/")}
    assert {Path(name).suffix for name in content} >= {".py", ".safetensors", ".csv", ".c", ".svg", ".mplstyle"}
    assert {"prffn/models/shipped/prffn_x3.safetensors", "prffn/losses/fused.c", "prffn/py.typed"} <= content


def test_the_wheel_asks_for_the_base_and_has_the_command(wheel):
    requirements = [Requirement(line) for line in metadata(wheel).get_all("Requires-Dist", [])]
    assert {str(r) for r in requirements if r.marker is None} == {str(r) for r in asked()}
    assert set(metadata(wheel).get_all("Provides-Extra", [])) == set(EXTRAS)
    (entries,) = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    assert wheel.read(entries).decode().split() == ["[console_scripts]", "prffn", "=", "prffn.__main__:main"]


def test_the_base_leaves_an_installed_torch_as_it_is():
    """A release of torchvision asks for one release of torch: pip would bring another torch with it."""
    assert {r.name for r in asked()}.isdisjoint({"torchvision", "lpips", "spandrel"})
    assert {r.name for r in asked()}.isdisjoint({"jupyterlab", "papermill", "pandas", "matplotlib"})
    assert {r.name for r in asked("kit")} > {r.name for r in asked("networks")}
    assert {r.name for r in asked("dev")} > {r.name for r in asked("kit", "cluster")}


BARE = """
import contextlib, importlib, io, json, pkgutil, sys

missing, folder = json.loads(sys.argv[1]), sys.argv[2]
sys.modules.update(dict.fromkeys(missing))
import prffn
from prffn.__main__ import main
from prffn.evaluation import metrics
from prffn.losses import vgg
from prffn.models import build
from prffn.models.pretrained import pretrained

errors = {}


def tried(name, function):
    try:
        function()
    except ImportError as error:
        errors[name] = str(error)


for module in pkgutil.walk_packages(prffn.__path__, "prffn.", onerror=lambda name: None):
    tried(module.name, lambda: importlib.import_module(module.name))
tried("SwinIR-light", lambda: build("SwinIR-light", 2))
tried("VGG-19", lambda: vgg._download_vgg19(""))
tried("LPIPS", metrics._lpips_network)
said = {}
for command in ("reports table5_region_size", "overview", "plan", "ship 2"):
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        assert main(command.split()) == 1
    said[command] = stderr.getvalue()
upscaled = main(["upscale", f"{folder}/a.png", "--scale", "2", "-o", f"{folder}/b/a.png"])
psnr = metrics.evaluate(pretrained(2), folder, scale=2).mean_psnr()
print(json.dumps({"errors": errors, "said": said, "upscaled": upscaled, "psnr": psnr}))
"""

OF_THE_KIT = ("prffn.study", "prffn.reporting", "prffn.paper", "prffn.models.comparison", "prffn.apps.panels",
              "prffn.apps.quickstart", "prffn.apps.ship", "prffn.apps.headless")  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory, photo) -> tuple[dict[str, Any], Path]:
    """What a process finds that has none of the extras' modules, and the folder of its images."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "b").mkdir()
    Image.fromarray(photo[40:64, 90:120]).save(folder / "a.png")
    command = [sys.executable, "-c", BARE, json.dumps(MISSING), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), CACHE_VARIABLE: str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder


def test_all_but_the_study_and_its_pages_import_without_extras(bare):
    """What does not import says which package is missing, and the extra that brings it."""
    errors = {name: text for name, text in bare[0]["errors"].items() if name.startswith("prffn.")}
    assert {name for name in errors if not name.startswith(OF_THE_KIT)} == set()
    assert {"prffn.study", "prffn.reporting", "prffn.paper"} <= set(errors)
    for name, text in errors.items():
        assert text.endswith('is not installed: pip install "prffn[kit]"'), name


def test_upscale_and_the_metrics_run_without_extras(bare):
    found, folder = bare
    assert found["upscaled"] == 0
    assert np.asarray(Image.open(folder / "b" / "a.png")).shape == (48, 60, 3)
    assert found["psnr"] > 20


@pytest.mark.parametrize(
    ("what", "package"), [("SwinIR-light", "spandrel"), ("VGG-19", "torchvision"), ("LPIPS", "lpips")]
)
def test_other_peoples_networks_name_their_extra(bare, what, package):
    assert bare[0]["errors"][what] == f'the package {package} is not installed: pip install "prffn[networks]"'


def test_the_command_line_names_the_extra_in_one_line(bare):
    for command, text in bare[0]["said"].items():
        assert re.fullmatch(r'prffn: the package \w+ is not installed: pip install "prffn\[kit\]"\n', text), command


def test_the_version_of_the_package_is_that_of_the_project():
    assert prffn.__version__ == PROJECT["version"]
