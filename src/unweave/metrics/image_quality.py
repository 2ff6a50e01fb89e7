"""How close reconstructions are to their images. n images, H W height and width."""

import numpy as np

WINDOW, SIGMA = 11, 1.5  # pixels, of the Gaussian that SSIM weighs neighbours by
K1, K2 = 0.01, 0.03
MOST_DB = 100.0


def psnr(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each of the uint8 images (n, H, W, 3) -> (n,); 100 where nothing differs."""
    errors = np.square(images.astype(np.float64) - others).mean((1, 2, 3)) / 255**2
    return -10 * np.log10(np.maximum(errors, 10 ** (-MOST_DB / 10)))


def ssim(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Structural similarity of each of the uint8 images (n, H, W, 3) -> (n,), at most 1 (Wang et al. 2004).

    Per channel, over all places where the 11 x 11 Gaussian window lies inside the image; at least 11 px a side.
    """
    x, y = (np.moveaxis(pictures, -1, 1).astype(np.float64) / 255 for pictures in (images, others))  # (n, 3, H, W)
    down, across = (_windows(side) for side in x.shape[2:])

    def local(values: np.ndarray) -> np.ndarray:
        """Weighted mean over each window, (n, 3, H - 10, W - 10)."""
        return down @ values @ across.T

    mean_x, mean_y = local(x), local(y)
    variances = local(x * x) - mean_x**2 + local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    structure = (2 * covariance + K2**2) / (variances + K2**2)
    return (luminance * structure).mean((1, 2, 3))


def _windows(side: int) -> np.ndarray:
    """(side - 10, side): a row of Gaussian weights, sum 1, for each window along one side."""
    offsets = np.arange(side) - np.arange(side - WINDOW + 1)[:, None] - WINDOW // 2
    weights = np.where(np.abs(offsets) <= WINDOW // 2, np.exp(-0.5 * (offsets / SIGMA) ** 2), 0)
    return weights / weights.sum(1, keepdims=True)
