"""The perceptual distance is LPIPS-VGG, as written down from its definition, on weights drawn under a seed."""

import pytest
import torch
from torch import nn

from unweave.errors import UserError
from unweave.nn.perceptual import Perceptual

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")  # Simonyan's D
RELUS = (3, 8, 15, 22, 29)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 among torchvision's features


def vgg16():
    """torchvision's `features`: convolution, ReLU, ..., pooling."""
    layers, before = [], 3
    for width in VGG16:
        if width == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight)
            before = width
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return vgg16()


@pytest.fixture(scope="module")
def heads():
    generator = torch.Generator().manual_seed(1)
    widths = (64, 128, 256, 512, 512)
    return {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=generator) for i, c in enumerate(widths)}


@pytest.fixture(scope="module")
def backbone(network):
    return {f"features.{name}": value for name, value in network.state_dict().items()}


def lpips(network, heads, images, others):
    """The definition: standardise, unit feature vectors, squared differences, weighted sum, mean over places."""
    total = 0
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = ((pictures - shift[None, :, None, None]) / scale[None, :, None, None] for pictures in (images, others))
    for place, layer in enumerate(network):
        x, y = layer(x), layer(y)
        if place in RELUS:
            unit_x, unit_y = (f / (f.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for f in (x, y))
            weights = heads[f"lin{RELUS.index(place)}.model.1.weight"].flatten()
            total = total + torch.einsum("bchw,c->bhw", (unit_x - unit_y) ** 2, weights).mean((1, 2))
    return total


@torch.no_grad()
def test_it_is_the_definition(network, backbone, heads):
    images, others = torch.rand(2, 2, 3, 48, 32) * 2 - 1
    ours = Perceptual(backbone, heads)
    found = ours(images, others)
    torch.testing.assert_close(found, lpips(network, heads, images, others), rtol=1e-5, atol=1e-6)
    assert (found > 0).all()
    torch.testing.assert_close(ours(others, images), found)
    assert (ours(images, images) == 0).all()


def test_its_gradient_is_finite_where_images_agree(backbone, heads):
    dark = {name: value - (10.0 if name.endswith("bias") else 0) for name, value in backbone.items()}  # no feature
    images = torch.zeros(1, 3, 32, 32, requires_grad=True)
    Perceptual(dark, heads)(images, torch.zeros(1, 3, 32, 32)).sum().backward()
    assert images.grad.isfinite().all()


@torch.no_grad()
def test_both_layouts_of_the_files_are_read(network, backbone, heads, tmp_path):
    ends = (4, 9, 16, 23, 30)  # of the slices that LPIPS's own file cuts the backbone into
    whole = dict(heads)
    for name, value in network.state_dict().items():
        place = int(name.split(".")[0])
        whole[f"net.slice{1 + sum(place >= end for end in ends)}.{name}"] = value
    torch.save(backbone | {"classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg16.pth")
    torch.save(heads, tmp_path / "heads.pth")
    torch.save(whole, tmp_path / "lpips.pth")
    images, others = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    expected = Perceptual(backbone, heads)(images, others)
    two = Perceptual.read(tmp_path / "vgg16.pth", tmp_path / "heads.pth")
    one = Perceptual.read(tmp_path / "lpips.pth", tmp_path / "lpips.pth")
    assert torch.equal(two(images, others), expected)
    assert torch.equal(one(images, others), expected)


def test_weights_of_something_else_are_named(backbone, heads):
    without = {name: value for name, value in backbone.items() if name != "features.12.bias"}
    with pytest.raises(UserError, match=r"features.12.bias is missing, not \(256,\)"):
        Perceptual(without, heads)
    with pytest.raises(UserError, match=r"lin2.model.1.weight has shape \(1, 3, 1, 1\), not \(1, 256, 1, 1\)"):
        Perceptual(backbone, heads | {"lin2.model.1.weight": torch.zeros(1, 3, 1, 1)})


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('this ran')",))


@pytest.mark.parametrize("content", [b"", b"PK", {"features.0.weight": 3}, [torch.zeros(1)], Malicious()])
def test_files_of_something_else_are_named_and_nothing_in_them_runs(content, tmp_path):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=r"perceptual.backbone .*weights.pth") as caught:
        Perceptual.read(path, path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="none.pth cannot be read"):
        Perceptual.read(tmp_path / "none.pth", path)
