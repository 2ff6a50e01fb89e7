"""PSNR and SSIM against their definitions, written out window by window."""

import numpy as np
import pytest
from scipy.ndimage import convolve

from unweave.metrics.image_quality import psnr, ssim


def pictures(num=3, height=20, width=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def ssim_by_convolution(image, other):
    """Wang et al. 2004, equation 13, 11 x 11 Gaussian windows of sigma 1.5 inside the image, mean of channels."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for channel in range(3):
        x, y = image[..., channel].astype(float), other[..., channel].astype(float)
        mx, my, xx, yy, xy = (convolve(a, window)[5:-5, 5:-5] for a in (x, y, x * x, y * y, x * y))
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        upper = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
        lower = (mx**2 + my**2 + c1) * (xx - mx**2 + yy - my**2 + c2)
        found.append((upper / lower).mean())
    return np.mean(found)


def test_ssim_is_its_definition():
    images = pictures()
    others = np.clip(images.astype(int) + np.random.default_rng(1).integers(-40, 40, images.shape), 0, 255)
    others = others.astype(np.uint8)
    expected = [ssim_by_convolution(image, other) for image, other in zip(images, others)]
    np.testing.assert_allclose(ssim(images, others), expected, atol=1e-9)
    np.testing.assert_allclose(ssim(others, images), expected, atol=1e-9)


def test_ssim_of_an_image_with_itself_is_one():
    np.testing.assert_allclose(ssim(pictures(), pictures()), 1)
    flat = np.full((1, 11, 11, 3), 7, np.uint8)
    np.testing.assert_allclose(ssim(flat, flat), 1)


@pytest.mark.parametrize("difference", [1, 17, 255])
def test_psnr_of_a_constant_difference(difference):
    images = np.zeros((2, 4, 4, 3), np.uint8)
    np.testing.assert_allclose(psnr(images, images + np.uint8(difference)), 20 * np.log10(255 / difference))
    np.testing.assert_allclose(psnr(images + np.uint8(difference), images), 20 * np.log10(255 / difference))


def test_psnr_is_of_each_image_and_bounded():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    others = images.copy()
    others[1] = 255
    np.testing.assert_allclose(psnr(images, others), [100, 0])
