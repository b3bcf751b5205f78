"""Equality with the reference's own tensors, and that the comparison would notice a difference."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import parity

DATA = Path(__file__).parent / "parity_data"
NEEDS = {"wan_vae": ("diffusers",), "umt5": ("transformers",), "released_checkpoint": ("diffusers", "transformers")}


@pytest.mark.parametrize("path", sorted(DATA.iterdir()), ids=lambda path: path.stem)
def test_equal_to_the_reference(path):
    for library in NEEDS.get(path.stem, ()):
        pytest.importorskip(library, reason=f"{library} runs Wan's own parts: pip install 'xwam[wan]'")
    results = parity.check(path)
    assert results and all(result.passed for result in results), results


def test_a_small_difference_fails(tmp_path, capsys):
    golden = parity.Golden.read(DATA / "transformer.safetensors")
    changed = dict(golden.tensors)
    changed["outputs.depth.action"] = changed["outputs.depth.action"] * 1.001
    save_file(changed, tmp_path / "changed.safetensors", golden.metadata)
    assert parity.main([str(tmp_path / "changed.safetensors")]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert len(failed) == 1 and "depth.action" in failed[0]


def test_an_output_of_another_shape_or_without_a_number_fails():
    assert parity.relative_error(torch.zeros(2), torch.zeros(3)) == float("inf")
    assert not parity.Comparison("x", parity.relative_error(torch.tensor([torch.nan]), torch.ones(1)), 1.0).passed


def test_a_file_of_no_known_kind_is_refused(tmp_path):
    save_file({"inputs.unheard": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="unheard"):
        parity.check(tmp_path / "other.safetensors")


def test_a_released_file_with_a_tensor_less_is_refused(tmp_path):
    parts = parity.read_released_checkpoint(DATA / "released_checkpoint")
    parts["transformer"].pop("blocks.0.ffn.up.bias")
    parity.write_released(parts, tmp_path / "states.pt")
    with pytest.raises(ValueError, match="blocks.0.ffn.up.bias"):
        parity.check(tmp_path / "states.pt")


def test_the_released_layout_holds_the_other_files_tensors():
    parts = parity.read_released_checkpoint(DATA / "released_checkpoint")
    alone = parity.transformer_from_published(parity.Golden.read(DATA / "transformer.safetensors").under("weights."))
    assert parts["transformer"].keys() == alone.keys()
    assert all(torch.equal(parts["transformer"][name], alone[name]) for name in alone)
    assert torch.equal(
        parts["latent_statistics"]["mean"], load_file(DATA / "wan_vae.safetensors")["inputs.latent_mean"]
    )
