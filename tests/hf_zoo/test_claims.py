"""Which scripts belong to which architecture, and what a script reports."""

import json
import sys

import pytest

from hf_zoo.claims import Claim, scripts_of


def test_scripts_belong_to_the_longest_name_that_they_start_with(tmp_path, monkeypatch):
    for name in ("sam", "sam_text", "concept_predictor", "mamba2", "mamba", "paired"):
        (tmp_path / f"{name}.py").touch()
    found = {name: [path.stem for path in paths] for name, paths in scripts_of(tmp_path).items()}
    assert found == {
        "mamba": ["mamba"],
        "mamba2": ["mamba2"],
        "sam": ["sam", "sam_text"],
        "concept_predictor": ["concept_predictor"],
    }
    assert list(scripts_of(tmp_path))[0] == "mamba"  # in the registry's order, where it is before sam
    monkeypatch.setattr("hf_zoo.claims.ARCHITECTURES", ("zoo_sam", "zoo_sam_text"))
    assert [path.stem for path in scripts_of(tmp_path)["sam_text"]] == ["sam_text"]


@pytest.mark.parametrize("holds", [True, False])
def test_figures_stand_beside_the_script(tmp_path, monkeypatch, holds):
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "sam_text.py")])
    claim = Claim("sam", "Kirillov et al. 2023")
    claim.compare("names pick their glyphs", holds, picked=0.91236)
    with pytest.raises(SystemExit) as left:
        claim.finish()
    assert left.value.code == (0 if holds else 1)
    report = json.loads((tmp_path / "sam_text.json").read_text())
    assert report["architecture"] == "sam"
    assert report["comparisons"] == [
        {"statement": "names pick their glyphs", "measured": {"picked": 0.9124}, "holds": holds}
    ]
