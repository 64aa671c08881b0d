"""The inference of the structure: arithmetic against modules, printed figures met where claimed, the report."""

import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
import torch
from conftest import CHECKOUT
from torch import nn

from prffn.models import PRFFN
from prffn.models.blocks import SAFB, RFAFusion
from prffn.models.complexity import multi_adds, parameters
from prffn.reporting import architecture, candidates
from prffn.reporting.candidates import KIT_SAFB, X2_SAFB, baselines, fusions, safb_candidates
from prffn.reporting.plots import new_figure


def test_parameters_are_those_of_pytorchs_convolutions():
    family = safb_candidates()
    assert len(family) > 2000
    for conv in {conv for convs in family.values() for conv in convs}:
        real = nn.Conv2d(conv.inputs, conv.outputs, conv.kernel, bias=conv.bias, groups=conv.groups, device="meta")
        assert (conv.parameters, conv.weights) == (parameters(real), real.weight.numel())


def test_the_baseline_by_arithmetic_is_the_module():
    table = candidates.baseline_table()
    assert (table["all, by arithmetic"] == table["all, counted"]).all()
    assert table["running total"].iloc[-1] == parameters(PRFFN(3, variant="PRFFN0")) == 2_975_163


def without(part: str) -> int:
    """Parameters of PRFFN0 where a part of each group, or of each block, is not there."""
    network = PRFFN(3, variant="PRFFN0")
    for owner in list(network.modules()):
        if part in dict(owner.named_children()):
            setattr(owner, part, nn.Identity())
    return parameters(network)


def test_changed_baselines_built_and_counted():
    counts = baselines()
    assert counts["no channel attention"] == without("attention")
    assert counts["no conv at the trunk's end"] == without("trunk")
    network = PRFFN(3, variant="PRFFN0")
    network.upsampler, network.tail = nn.Conv2d(64, 27, 3), nn.Identity()
    assert counts["upsampler straight to RGB"] == parameters(network)
    biases = sum(m.bias.numel() for m in PRFFN(3, variant="PRFFN0").modules() if isinstance(m, nn.Conv2d))
    assert counts["no biases"] == counts["64 channels, as in the kit"] - biases


def test_the_kits_own_structures_are_among_the_candidates():
    """The fusion, SAFB and totals of the real modules, under their names."""
    name, count = next(iter(fusions().items()))
    assert name.endswith("as in the kit")
    assert count == parameters(PRFFN(3, variant="PRFFN1")) == 2_975_163 + 30 * parameters(RFAFusion(64))
    real = [module for module in SAFB(64).modules() if isinstance(module, nn.Conv2d)]
    assert [conv.parameters for conv in safb_candidates()[KIT_SAFB]] == [parameters(module) for module in real]
    row = architecture.safb_table(biases=False).loc[KIT_SAFB]
    for scale in (2, 3, 4):
        with torch.device("meta"):
            model = PRFFN(scale)
        assert row[f"x{scale} (K)"] == parameters(model) / 1000
        assert row[f"x{scale} (G)"] == round(multi_adds(model, scale) / 1e9, 1)


def test_the_baseline_and_the_fusion_stand_out():
    """64 channels: 2,975,163, rounds to the printed 2975 K; no other baseline comes within 4 K. 3,222,843 is the
    printed 3222 K only if it was cut off; without biases it would be 3,220,923."""
    baseline, fusion = architecture.beside(baselines(), "PRFFN0"), architecture.beside(fusions(), "PRFFN1")
    assert baseline.index[0].startswith("64 channels")
    assert baseline["off (K)"].abs().to_list()[:2] == [0.163, 4.323]
    assert baseline.fits.to_list() == ["rounded, cut off"] + ["no"] * 24
    assert (fusion.fits.iloc[0], fusion.parameters.iloc[1]) == ("cut off", 3_220_923)
    assert abs(fusion["off (K)"].iloc[2]) > 80
    assert architecture.fits([3167.163, 3130.235], [3167, 3131]) == "no"
    assert architecture.fits([2999.6], [3000]) == "rounded"


@pytest.fixture(scope="module")
def safbs() -> pd.DataFrame:
    return architecture.safb_table()


def test_what_a_safb_may_have(safbs):
    """x3 without SAFBs has 2,975,163, x4 2,938,235. 3,166,500 to 3,167,499 is 191,337 to 192,336 more, 6,378 to 6,411
    for each of 30; 3,130,500 to 3,131,499 at x4 is 6,409 to 6,442: together 6,409 to 6,411. The kit's has 6,400."""
    window, table = architecture.safb_window(), safbs
    assert window.loc["x3", ["rounded, from", "rounded, to"]].to_list() == [6_378, 6_411]
    assert window.loc["x4", ["rounded, from", "rounded, to"]].to_list() == [6_409, 6_442]
    assert window.loc["x3 and x4"].to_list()[1:] == [6_409, 6_411, 6_426, 6_427]
    assert (table["fits x3 and x4"] == "no").all()
    assert table.loc[KIT_SAFB, "off (K)"] == pytest.approx(0.765)
    assert list(table.index).index(KIT_SAFB) < 5
    assert table.loc[X2_SAFB, ["one SAFB", "x2 (G)", "x3 (G)", "x4 (G)"]].to_list() == [2_354, 656.4, 311.8, 199.3]


def test_counting_biases_by_hand():
    """x2, 230,400 LR positions: head 64, 70 convs of 64 in the groups, trunk 64, upsampler 256, tail 3 at four times
    the positions; the attention's 4 + 64 of 30 blocks work on one position."""
    model = PRFFN(2, variant="PRFFN0").to("meta")
    assert architecture.bias_adds(model, 2) == 230_400 * (64 + 70 * 64 + 64 + 256 + 4 * 3) + 30 * 68


def test_separate_branches_would_show():
    """Two more 3x3 convs of 36,928 in each of 30 blocks: 3,167,163 + 2,215,680."""
    table = architecture.mrcab_table()
    assert table.loc["separate weights", "x3 (K)"] == 3_167.163 + 2_215.680
    assert table.loc["shared weight, counted once"].to_list() == [3167.163, 683.2, 323.7, 206.0]
    assert (table["x2 (G)"].iloc[2:] == 1192.8).all()
    assert architecture.run_times().loc["PRFFN, all branches", "G"] == round(656.4 + 60 * 36_864 * 230_400 / 1e9, 1)


def test_files_and_that_the_committed_report_says_what_the_code_counts(safbs, tmp_path, monkeypatch):
    monkeypatch.setenv("PRFFN_REPORTS", str(tmp_path))
    text = architecture.conclusion(
        architecture.beside(baselines(), "PRFFN0"), architecture.beside(fusions(), "PRFFN1"),
        architecture.safb_window(), safbs, architecture.mrcab_table(),
    )  # fmt: skip
    tables = {"Ablation": architecture.ablation(), "Window": architecture.safb_window()}
    architecture.save_architecture("name", "cpu", tables, text, new_figure()[0], title="Title", answer="A.")
    written = pd.read_csv(tmp_path / "cpu" / "name.csv")
    assert list(written["table"]) == ["Ablation"] * 4 + ["Window"] * 4
    assert list(written["counted"][:4]) == [2_975_163, 3_222_843, 3_167_163, 3_167_163]
    assert text in (tmp_path / "cpu" / "name.md").read_text()
    assert text in (CHECKOUT / "reports" / "cpu" / "architecture.md").read_text()


def test_the_diagram_loads_nothing():
    root = ElementTree.parse(architecture.DIAGRAM).getroot()
    links = {value for element in root.iter() for name, value in element.attrib.items() if name.endswith("href")}
    assert all(link.startswith("#") for link in links)
