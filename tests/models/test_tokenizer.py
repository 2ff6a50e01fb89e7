import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import VQModel
from safetensors.torch import load_file, save_file
from sklearn.decomposition import PCA

from unweave.config import DiffusionConfig, TokenizerConfig, VQConfig
from unweave.errors import UserError
from unweave.models.tokenizer import VQ_WEIGHTS, Patch, Pixels, make_tokenizer, make_vq

PIXELS = TokenizerConfig(kind="pixels", channels=3, downsample=1)
PATCH = TokenizerConfig(kind="patch", channels=10, downsample=4)
SMALL_VQ = TokenizerConfig(channels=3, downsample=2, vq=VQConfig(channels=(32, 32), num_res_blocks=1, codebook_size=64))


def smooth_images(num, size=16, seed=0):
    """Images (num, 3, size, size) in [-1, 1] whose neighbouring pixels are alike."""
    coarse = torch.rand(num, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def patches_of(images, width):
    """All patches (n, 3 width width) as a loop cuts them out; float64."""
    size = images.shape[-1]
    corners = [(top, left) for top in range(0, size, width) for left in range(0, size, width)]
    cut = [image[:, y : y + width, x : x + width].flatten() for image in images for y, x in corners]
    return torch.stack(cut).double().numpy()


@pytest.fixture(scope="module")
def vq_folder(tmp_path_factory):
    """A diffusers folder of a small VQModel with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vq")
    make_vq(SMALL_VQ, 16).save_pretrained(folder)
    return folder


def tokenizers(vq_folder):
    configs = [PIXELS, PATCH, replace(SMALL_VQ, folder=str(vq_folder))]
    return [(config, make_tokenizer(config, 16)) for config in configs]


def test_latents_have_unit_variance_overall(vq_folder):
    images = smooth_images(300)
    for config, tokenizer in tokenizers(vq_folder):
        tokenizer.fit(images)
        latents = tokenizer.encode(images)
        assert latents.shape == (300, config.channels, 16 // config.downsample, 16 // config.downsample)
        assert latents.std().item() == pytest.approx(1, abs=1e-4), config.kind


def test_all_state_is_in_the_state_dict_and_frozen(vq_folder):
    images = smooth_images(50)
    for config, tokenizer in tokenizers(vq_folder):
        tokenizer.fit(images)
        assert not any(p.requires_grad for p in tokenizer.parameters())
        restored = make_tokenizer(replace(config, folder=""), 16)
        restored.load_state_dict(tokenizer.state_dict())
        latents = tokenizer.encode(images)
        assert torch.equal(restored.encode(images), latents)
        assert torch.equal(restored.decode(latents), tokenizer.decode(latents))
        assert not latents.requires_grad


def test_images_do_not_see_each_other(vq_folder):
    images = smooth_images(6)
    for _, tokenizer in tokenizers(vq_folder):
        tokenizer.fit(images)
        tokenizer.train()
        latents = tokenizer.encode(images)
        alone = torch.cat([tokenizer.encode(image[None]) for image in images])
        torch.testing.assert_close(alone, latents, rtol=0, atol=1e-5)
        alone = torch.cat([tokenizer.decode(latent[None]) for latent in latents])
        torch.testing.assert_close(alone, tokenizer.decode(latents), rtol=0, atol=1e-5)


def test_pixels_are_the_images():
    images, tokenizer = smooth_images(20), Pixels()
    line = tokenizer.fit(images)
    torch.testing.assert_close(tokenizer.encode(images), images / images.std())
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(images)), images)
    assert line == f"pixel tokenizer: images scaled by {1 / images.std():.3g}"


def test_patch_is_pca():
    images, tokenizer = smooth_images(400), Patch(channels=10, patch_size=4, whitening=0.0)
    line = tokenizer.fit(images)
    patches = patches_of(images, 4)
    oracle = PCA(10, svd_solver="full").fit(patches)
    expected = oracle.transform(patches)
    latents = tokenizer.encode(images).permute(0, 2, 3, 1).flatten(0, 2) / tokenizer.scale
    assert (tokenizer.scale == tokenizer.scale[0]).all()
    signs = np.sign((expected * latents.numpy()).sum(0))
    np.testing.assert_allclose(latents.numpy() * signs, expected, atol=2e-5)

    np.testing.assert_allclose(tokenizer.mean.flatten().numpy(), oracle.mean_, atol=1e-6)
    components = tokenizer.components.flatten(1).double()
    np.testing.assert_allclose((components @ components.T).numpy(), np.eye(10), atol=1e-6)
    assert (components.gather(1, components.abs().argmax(1, keepdim=True)) > 0).all()
    kept = oracle.explained_variance_ratio_.sum()
    assert tokenizer.variance_kept.item() == pytest.approx(kept, abs=1e-6)
    assert line == f"patch tokenizer: 10 of 48 components keep {100 * kept:.1f} % of the variance of 4 px patches"


def test_what_patch_loses_is_the_variance_it_drops():
    images, tokenizer = smooth_images(200), Patch(channels=10, patch_size=4, whitening=0.0)
    tokenizer.fit(images)
    lost = (tokenizer.decode(tokenizer.encode(images)) - images).square().mean()
    total = patches_of(images, 4).var(0).sum() / 48
    assert lost.item() == pytest.approx(total * (1 - tokenizer.variance_kept.item()), rel=1e-3)


def test_all_components_lose_nothing():
    images, tokenizer = torch.rand(64, 3, 8, 8) * 2 - 1, Patch(channels=48, patch_size=4, whitening=0.5)
    assert "48 of 48 components keep 100.0 %" in tokenizer.fit(images)
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(images)), images, rtol=0, atol=1e-5)


def test_noise_in_patch_latents_is_white_in_the_images():
    """Orthonormal: distances between latents are distances between images, times the scale."""
    images, tokenizer = smooth_images(100), Patch(channels=10, patch_size=4, whitening=0.0)
    tokenizer.fit(images)
    noise = torch.randn(100, 10, 4, 4)
    difference = tokenizer.decode(noise) - tokenizer.decode(torch.zeros_like(noise))
    torch.testing.assert_close(difference.norm(), noise.norm() / tokenizer.scale[0])


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_whitening_is_that_of_pca(whitening):
    """Components over the power of their spread, all together of unit variance."""
    images, tokenizer = smooth_images(400), Patch(channels=10, patch_size=4, whitening=whitening)
    tokenizer.fit(images)
    patches = patches_of(images, 4)
    oracle = PCA(10, svd_solver="full", whiten=True).fit(patches)
    spread = np.sqrt(oracle.explained_variance_)
    expected = oracle.transform(patches) * spread ** (1 - whitening)
    expected /= np.sqrt((expected.std(0) ** 2).mean())
    latents = tokenizer.encode(images).permute(0, 2, 3, 1).flatten(0, 2).numpy()
    np.testing.assert_allclose(latents * np.sign((expected * latents).sum(0)), expected, atol=2e-3)
    decoded = tokenizer.decode(tokenizer.encode(images))
    torch.testing.assert_close(tokenizer.encode(decoded), tokenizer.encode(images), rtol=0, atol=1e-3)


def test_patch_fit_does_not_depend_on_the_order_of_images():
    images = smooth_images(300)
    ours, other = Patch(10, 4, 0.5), Patch(10, 4, 0.5)
    ours.fit(images)
    other.fit(images.flip(0))
    torch.testing.assert_close(other.components, ours.components, rtol=0, atol=1e-5)


def test_an_unfitted_patch_tokenizer_gives_no_numbers():
    assert Patch(10, 4, 0.5).encode(smooth_images(1)).isnan().all()


def test_vq_is_the_model_in_the_folder(vq_folder):
    images = smooth_images(30)
    tokenizer = make_tokenizer(replace(SMALL_VQ, folder=str(vq_folder)), 16)
    line = tokenizer.fit(images)
    oracle = VQModel.from_pretrained(vq_folder).eval()
    with torch.no_grad():
        expected = oracle.encode(images).latents
        picture = oracle.decode(expected).sample
    torch.testing.assert_close(tokenizer.scale, 1 / expected.std())
    latents = tokenizer.encode(images)
    torch.testing.assert_close(latents, expected * tokenizer.scale, rtol=0, atol=1e-5)
    torch.testing.assert_close(tokenizer.decode(latents), picture, rtol=0, atol=1e-4)
    assert line == f"vq tokenizer from {vq_folder}: latents scaled by {tokenizer.scale.item():.3g}"


def test_vq_quantises_before_it_decodes(vq_folder):
    tokenizer = make_tokenizer(replace(SMALL_VQ, folder=str(vq_folder)), 16)
    tokenizer.fit(smooth_images(30))
    latents = tokenizer.encode(smooth_images(2))
    codebook = tokenizer.vq.quantize.embedding.weight * tokenizer.scale
    pixels = latents.permute(0, 2, 3, 1).flatten(0, 2)
    nearest = codebook[(pixels[:, None] - codebook).norm(dim=2).argmin(1)]
    quantised = nearest.reshape(2, 8, 8, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(tokenizer.decode(quantised), tokenizer.decode(latents), rtol=0, atol=1e-4)


def test_the_published_vq_has_the_published_size():
    with torch.device("meta"):
        vq = make_vq(TokenizerConfig(), 64)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in vq.named_children()}
    assert (counts["encoder"], counts["decoder"], counts["quantize"]) == (1_403_363, 2_068_547, 6_144)
    assert sum(counts.values()) == 3_478_078


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_out_channels": [32, 64]}, r"has block_out_channels \[32, 64\], the config has \(32, 32\)"),
        ({"num_vq_embeddings": 128}, "has num_vq_embeddings 128, the config has 64"),
        ({"act_fn": "relu"}, "has act_fn relu"),
    ],
)
def test_another_architecture_is_refused(vq_folder, tmp_path, change, message):
    described = json.loads((vq_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | change))
    (tmp_path / VQ_WEIGHTS).write_bytes((vq_folder / VQ_WEIGHTS).read_bytes())
    with pytest.raises(UserError, match=message):
        make_tokenizer(replace(SMALL_VQ, folder=str(tmp_path)), 16).fit(smooth_images(4))


def test_vq_folders_that_cannot_be_read_are_refused(vq_folder, tmp_path):
    def fit(folder):
        with pytest.raises(UserError) as caught:
            make_tokenizer(replace(SMALL_VQ, folder=str(folder)), 16).fit(smooth_images(4))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "name its folder" in fit("")
    assert f"{tmp_path / 'none'} holds no readable VQModel" in fit(tmp_path / "none")
    (tmp_path / "config.json").write_text("[]")
    (tmp_path / VQ_WEIGHTS).write_bytes((vq_folder / VQ_WEIGHTS).read_bytes())
    assert "should be a JSON object" in fit(tmp_path)
    (tmp_path / "config.json").write_bytes((vq_folder / "config.json").read_bytes())
    weights = load_file(vq_folder / VQ_WEIGHTS)
    weights.pop("quant_conv.bias")
    save_file(weights, tmp_path / VQ_WEIGHTS)
    assert "quant_conv.bias" in fit(tmp_path)
    (tmp_path / VQ_WEIGHTS).write_bytes((vq_folder / VQ_WEIGHTS).read_bytes()[:-100])
    assert "holds no readable VQModel" in fit(tmp_path)
    (tmp_path / VQ_WEIGHTS).unlink()
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"")
    assert VQ_WEIGHTS in fit(tmp_path)


@pytest.mark.parametrize("value", [0.5, math.nan])
def test_images_that_say_nothing_are_refused(vq_folder, value):
    for config, tokenizer in tokenizers(vq_folder):
        if config.kind == "vq" and not math.isnan(value):
            continue  # its latents of a constant image vary at the edges
        with pytest.raises(UserError, match="vary"):
            tokenizer.fit(torch.full((4, 3, 16, 16), value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pixels"}, "`pixels` has 3 channels and downsample 1, not 3 and 4"),
        ({"kind": "patch", "channels": 49}, "tokenizer.channels is 49: a 4 px patch has 48"),
        ({"channels": 0}, "tokenizer.channels is 0"),
        ({"downsample": 8}, "tokenizer.downsample is 8: a VQModel of 3 levels has 4"),
        ({"vq": VQConfig(channels=(32, 64))}, "tokenizer.downsample is 4: a VQModel of 2 levels has 2"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        replace(TokenizerConfig(), **changes)


def test_sizes_of_the_vq_that_cannot_be_are_refused():
    with pytest.raises(UserError, match=r"vq.channels is \(32, 0\)"):
        VQConfig(channels=(32, 0))
    with pytest.raises(UserError, match="vq.codebook_size is 0"):
        VQConfig(codebook_size=0)
    with pytest.raises(UserError, match="tokenizer.downsample is 4: must divide model.image_size 66"):
        DiffusionConfig(image_size=66)
