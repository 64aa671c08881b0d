"""Wrong parameters of every notebook, and wrong options of every command: an error that says what is wrong, and nothing
written. Properties, over examples that hypothesis draws.

No kernel is started for each: papermill puts the parameters into the notebook, as ever, and its cells are executed
here, up to the first one that would train or write.
"""

import copy
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from string import ascii_lowercase
from unittest.mock import Mock

import IPython
import pandas as pd
import pytest
from conftest import CHECKOUT
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from test_inputs_settings import JUNK

from prffn import reporting, study
from prffn.__main__ import main
from prffn.apps import panels
from prffn.config import PROFILES
from prffn.files import reports_root
from prffn.reporting import architecture, candidates
from prffn.reporting import crops as crop_report
from prffn.study import crops, evaluations, notebook

NOTEBOOKS = {path.stem: load_notebook_node(str(path)) for path in sorted((CHECKOUT / "notebooks").glob("*.ipynb"))}
BIN = Path(sys.executable).parent


def parameters_of(name: str) -> list[str]:
    """The names that a notebook's cell of parameters assigns."""
    (cell,) = [c for c in NOTEBOOKS[name].cells if "parameters" in c.metadata.tags]
    names: dict[str, object] = {}
    exec(cell.source, {"__builtins__": {}}, names)
    return list(names)


ASKED = [(notebook, name) for notebook in NOTEBOOKS for name in parameters_of(notebook)]
"""Every parameter of every notebook."""


class WouldWriteError(Exception):
    """The parameters were accepted: the notebook has come to where it trains, measures or writes."""


@pytest.fixture(scope="module", autouse=True)
def nothing_is_made() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (notebook, "ensure"), (study, "ensure_timings"), (evaluations, "ensure_evaluations"),
            (crops, "ensure_crops"), (crops, "weights_there"), (panels, "train_live"), (reporting, "save"),
            (crop_report, "save_crops"), (architecture, "save_architecture"), (candidates, "baseline_table"),
        ):  # fmt: skip
            patch.setattr(module, name, Mock(side_effect=WouldWriteError))
        yield
    pd.reset_option("display.max_colwidth")


def outcome(notebook: str, parameters: dict[str, object]) -> Exception:
    """What a notebook stops with when papermill is given these parameters."""
    injected = parameterize_notebook(copy.deepcopy(NOTEBOOKS[notebook]), parameters)
    names: dict[str, object] = {"In": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IPython, "get_ipython", lambda: Mock(user_ns=names))  # it knows the cells run so far
        for cell in injected.cells:
            if cell.cell_type == "code":
                names["In"].append(cell.source)
                try:
                    exec(cell.source, names)
                except Exception as error:
                    return error
    raise AssertionError(f"{notebook} ran to its end")


def written(value: object) -> bool:
    """Whether papermill can write a value into a notebook as it is."""
    return not isinstance(value, complex | bytes) and type(value) is not object


def junk_or(*values: object) -> st.SearchStrategy[object]:
    return st.one_of(JUNK, st.sampled_from(values))


WRONG = {
    "profile": JUNK.filter(lambda value: value not in list(PROFILES)),
    "seeds": JUNK.filter(lambda value: value is not None),
    "device": junk_or("gpu", "cuda:99", "meta", "CPU"),
    "retrain": JUNK.filter(lambda value: not isinstance(value, bool)),
    "scheduler": junk_or("host", "tcp://host", "tcp://host:0", "host:x").filter(lambda value: value is not None),
    "image": junk_or("cofee", "Set5/none", "none.png", "/"),
    "region": st.one_of(junk_or("0, 0, 60, 80"), st.lists(st.integers(max_value=10), min_size=4, max_size=4)),
    "scale": junk_or(0, 1, 5, 3.0, "3"),
    "row": junk_or(10**6, 1.0, "100"),
    "column": junk_or(10**6, 1.0, "100"),
    "loss": junk_or("none.py:my_loss", "notebooks/losses_to_try.py", "notebooks/losses_to_try.py:L_1", "README.md:f"),
    "weight": JUNK.filter(lambda value: isinstance(value, bool) or not isinstance(value, int | float) or not value > 0),
}
"""By parameter, values that cannot be used."""
WRONG |= {f"second_{name}": WRONG[name] for name in ("image", "region")}


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_parameter_is_tried(notebook):
    """One that is not here yet, or whose default is refused, would pass unseen."""
    assert set(parameters_of(notebook)) <= set(WRONG)
    assert isinstance(outcome(notebook, {}), WouldWriteError)


@settings(max_examples=400)
@given(st.sampled_from(ASKED), st.data())
def test_a_wrong_value_is_named_and_nothing_is_written(asked, data):
    notebook, name = asked
    value = data.draw(WRONG[name].filter(written), name)
    error = outcome(notebook, {name: value})
    assert isinstance(error, ValueError | TypeError | FileNotFoundError), repr(error)
    assert name.removeprefix("second_") in str(error)
    if isinstance(error, FileNotFoundError):  # names the image set
        value = value.partition("/")[0]
    assert repr(value) in str(error) or str(value) in str(error)
    assert len(str(error).splitlines()) == 1
    assert not reports_root().exists()


@given(st.sampled_from(ASKED), st.integers(0, 30), st.sampled_from(ascii_lowercase), JUNK.filter(written))
def test_a_misspelt_name_is_named_and_nothing_is_written(asked, place, letter, value):
    """One letter more, whatever the value: papermill itself only warns of it."""
    notebook, name = asked
    misspelt = name[:place] + letter + name[place:]
    assume(misspelt.isidentifier() and misspelt not in parameters_of(notebook))
    error = outcome(notebook, {misspelt: value})
    assert isinstance(error, ValueError)
    assert f"unknown notebook parameter {misspelt!r}" in str(error)
    assert not reports_root().exists()


def test_a_corrected_cell_counts_not_what_it_was():
    """Whoever corrects the name in JupyterLab and runs the cells again, in the same kernel."""
    wrong = "# Parameters\nprofil = 'quick'\n"
    names: dict[str, object] = {"In": ["", wrong]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IPython, "get_ipython", lambda: Mock(user_ns=names))
        check = "from prffn.study.notebook import check_parameters\ncheck_parameters(profile='quick')"
        with pytest.raises(ValueError, match="unknown notebook parameter 'profil'"):
            exec(check, {})
        names["In"] += [check, wrong.replace("profil", "profile"), "# Parameters of the figure\nwidth = 3"]
        exec(check, {})


def test_with_a_kernel(tmp_path):
    """The same by papermill's own command."""
    command = [BIN / "papermill", CHECKOUT / "notebooks" / "fig8_crops_x2.ipynb", "out.ipynb", "-p", "regions", "3"]
    done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode != 0
    assert "unknown notebook parameter 'regions'. Did you mean 'region'?" in done.stderr
    assert not reports_root().exists()


# The command line

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=6).filter(
    lambda text: not text.startswith("-")
)
NO_NUMBER = WORDS.filter(lambda text: not text.strip().lstrip("+-").replace("_", "").isdecimal())
BELOW_ONE = st.integers(max_value=0).map(str)
DEVICES = st.one_of(WORDS.filter(lambda text: text not in ("auto", "cpu", "cuda", "mps")), st.just("meta"))
NAMES = WORDS.filter(lambda text: text not in NOTEBOOKS)
PROFILE = WORDS.filter(lambda text: text not in PROFILES)
SEEDS = st.one_of(NO_NUMBER, BELOW_ONE, st.integers(1001).map(str))

OPTIONS = {
    "reports": {"": NAMES, "--profile": PROFILE, "--seeds": SEEDS, "--device": DEVICES, "--scheduler": WORDS,
                "--workers": st.one_of(NO_NUMBER, BELOW_ONE)},
    "train": {"": NAMES, "--profile": PROFILE, "--seeds": SEEDS, "--device": DEVICES, "--label": WORDS},
    "plan": {"": NAMES, "--profile": PROFILE, "--seeds": SEEDS, "--device": DEVICES,
             "--gpus": st.one_of(NO_NUMBER, BELOW_ONE), "--step-seconds": st.sampled_from(("0", "-1", "nan"))},
    "overview": {"": WORDS, "--profile": PROFILE},
    "html": {"": WORDS, "--profile": PROFILE},
    "bench": {"": WORDS.filter(bool), "--device": DEVICES, "--rounds": st.one_of(NO_NUMBER, BELOW_ONE),
              "--batch": st.one_of(NO_NUMBER, BELOW_ONE)},
    "check": {"--device": DEVICES},
    "data get": {"": st.one_of(WORDS, st.just("Manga109"))},
    "ship": {"": st.one_of(NO_NUMBER, st.integers().filter(lambda n: n not in (2, 3, 4)).map(str))},
}  # fmt: skip
"""By command and option ("" is what stands without one), values that cannot be used. Of `upscale`: test_upscale.py."""


@settings(max_examples=300)
@given(st.sampled_from([(command, option) for command, options in OPTIONS.items() for option in options]), st.data())
def test_a_wrong_option_ends_in_one_line_and_nothing_is_written(asked, data):
    command, option = asked
    value = data.draw(OPTIONS[command][option], option)
    arguments = [*command.split(), *([f"{option}={value}"] if option else [value])]
    if command == "train" and option == "--label":
        arguments.append("table5_region_size")
    with redirect_stderr(io.StringIO()) as said:
        try:
            status = main(arguments)
        except SystemExit as stopped:  # argparse's own
            status = int(stopped.code)
    line = said.getvalue().strip().splitlines()[-1]
    assert status in (1, 2)
    assert line.startswith(("prffn: ", "python -m prffn"))
    assert repr(value) in line or Path(value).name.strip() in line
    assert "Traceback" not in said.getvalue()
    assert not reports_root().exists()
