"""Inception as FID has it: names and shapes of the published file, and features that pytorch-fid gives with weights
drawn under a seed."""

import numpy as np
import pytest
import torch

from unweave.errors import UserError
from unweave.nn.inception import Inception, average, largest

SHAPES = {
    "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
    "Conv2d_2b_3x3.conv.weight": (64, 32, 3, 3),
    "Conv2d_3b_1x1.bn.running_var": (80,),
    "Conv2d_4a_3x3.bn.bias": (192,),
    "Mixed_5b.branch1x1.bn.running_mean": (64,),
    "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
    "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
    "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
    "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
    "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
    "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
    "Mixed_6c.branch7x7dbl_4.conv.weight": (160, 160, 7, 1),
    "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
    "Mixed_7a.branch3x3_2.conv.weight": (320, 192, 3, 3),
    "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
    "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
    "Mixed_7b.branch3x3_2b.conv.weight": (384, 384, 3, 1),
    "Mixed_7c.branch3x3dbl_1.conv.weight": (448, 2048, 1, 1),
    "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
    "fc.weight": (1008, 2048),
}
BY_PYTORCH_FID = [[0.58781, 0.02183, 0.19368, 2.75426, 0.0], [0.53195, 0.02089, 0.20378, 2.79741, 0.0]]
"""Each 500th feature of `waves` with `drawn_weights`, as pytorch-fid 0.3.0 gives them."""
MEANS = [0.8197023, 0.8450645]


def drawn_weights():
    """Without the counters of the norms, which the file has not."""
    rng, found = np.random.default_rng(0), {}
    for name, value in Inception().state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        numbers = rng.standard_normal(tuple(value.shape), dtype=np.float32)
        if value.ndim > 1:
            numbers *= (2 / value[0].numel()) ** 0.5
        else:
            numbers = 1 + 0.2 * np.tanh(numbers) if name.endswith(("bn.weight", "var")) else 0.1 * numbers
        found[name] = torch.from_numpy(numbers)
    return found


def waves():
    """Two pictures (2, 3, 64, 64) in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(64) / 64, torch.arange(64) / 64, indexing="ij")
    phases = torch.arange(6).reshape(2, 3, 1, 1) / 3
    return torch.sin(9 * x + 5 * y * (1 + phases) + phases)


@pytest.fixture(scope="module")
def weights():
    return drawn_weights()


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(weights, path)
    yield path
    path.unlink()  # 95 MB


def test_names_and_shapes_are_those_of_the_published_file(weights):
    assert len(weights) == 94 * 5 + 2
    assert {name: tuple(weights[name].shape) for name in SHAPES} == SHAPES
    learned = (value for name, value in weights.items() if "running" not in name)
    assert sum(value.numel() for value in learned) == 23_850_960


@torch.no_grad()
def test_features_are_those_of_pytorch_fid(file):
    features = Inception.read(file)(waves())
    assert features.shape == (2, 2048)
    np.testing.assert_allclose(features[:, ::500], BY_PYTORCH_FID, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features.mean(1), MEANS, rtol=1e-4)


def test_what_lies_outside_does_not_count():
    x = torch.full((1, 1, 4, 5), -3.0)
    assert torch.equal(average(x), x)  # 4 / 9 of it in the corners, were the padding counted
    assert torch.equal(largest(x), x)
    ramp = torch.arange(5.0).expand(1, 1, 5, 5)
    assert average(ramp)[0, 0, 2].tolist() == [0.5, 1, 2, 3, 3.5]
    assert largest(ramp)[0, 0, 2].tolist() == [1, 2, 3, 4, 4]


@torch.no_grad()
@pytest.mark.parametrize(("block", "pool"), [("Mixed_5b", average), ("Mixed_6e", average), ("Mixed_7c", largest)])
def test_each_block_pools_as_the_published_network(block, pool):
    """With norms that do nothing, its last part is a product of the pooled input."""
    network = Inception().eval()
    found = network.get_submodule(block)
    weight = found.get_submodule("branch_pool").conv.weight
    x = torch.randn(1, weight.shape[1], 6, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], pool(x)).relu()
    torch.testing.assert_close(found(x)[:, -len(weight) :], expected, rtol=1e-3, atol=1e-4)


def test_counters_of_the_norms_may_be_there(weights, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({**weights, "Mixed_5b.branch1x1.bn.num_batches_tracked": torch.tensor(7)}, path)
    assert torch.equal(Inception.read(path).fc.weight, weights["fc.weight"])


def test_files_of_something_else_are_named(weights, tmp_path):
    path = tmp_path / "weights.pth"
    name = "Mixed_6b.branch7x7_2.conv.weight"
    cases = {
        f"{name} is missing, not (128, 128, 1, 7)": {key: value for key, value in weights.items() if key != name},
        f"{name} has shape (128, 128, 7, 1), not": weights | {name: weights[name].mT},
        "it has ['AuxLogits.fc.bias']": weights | {"AuxLogits.fc.bias": torch.zeros(1)},
        "Conv2d_1a_3x3.conv.weight is missing": {"features.0.weight": torch.zeros(1)},
    }
    for words, content in cases.items():
        torch.save({key: value.to(torch.float16) for key, value in content.items()}, path)
        with pytest.raises(UserError) as caught:
            Inception.read(path)
        assert str(caught.value).startswith(f"inception {path} is not the Inception of FID: ")
        assert words in str(caught.value)
    path.write_bytes(b"<html>")
    with pytest.raises(UserError, match="cannot be read"):
        Inception.read(path)
