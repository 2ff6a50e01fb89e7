"""The Frechet distance against closed forms and scipy's matrix square root; its moments against numpy's."""

import numpy as np
import pytest
import scipy.linalg

from unweave.errors import UserError
from unweave.metrics import Moments, frechet_distance


def moments(features, pieces=1):
    found = Moments(features.shape[1])
    for part in np.array_split(features, pieces):
        found.update(part)
    return found


def gaussian(rng, num, width, scale=1.0):
    return rng.normal(size=(num, width)) @ rng.normal(size=(width, width)) * scale + rng.normal(size=width)


def exactly(mean, covariance):
    """Moments with just this mean and covariance: two rows per direction."""
    rows = scipy.linalg.sqrtm(np.asarray(covariance)).real * np.sqrt((2 * len(mean) - 1) / 2)
    return moments(np.concatenate([mean + rows, mean - rows]))


def test_moments_are_those_of_all_rows_in_any_pieces_and_order():
    rng = np.random.default_rng(0)
    features = gaussian(rng, 300, 6) + 1e6
    whole = moments(features)
    np.testing.assert_allclose(whole.covariance, np.cov(features, rowvar=False), rtol=1e-8)
    np.testing.assert_allclose(whole.mean, features.mean(0), rtol=1e-14)
    merged = Moments(6)
    for part in (moments(features[200:]), Moments(6), moments(features[:199], 50), moments(features[199:200])):
        merged.merge(part)
    for other in (moments(features, 300), moments(rng.permutation(features), 7), merged):
        assert other.num == 300
        np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-14)
        np.testing.assert_allclose(other.covariance, whole.covariance, rtol=1e-8)


def test_it_keeps_the_digits_of_float32_features():
    features = (np.random.default_rng(0).normal(size=(1_000, 3)) + 1_000).astype(np.float32)
    expected = np.cov(features.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(moments(features, 10).covariance, expected, rtol=1e-9)


def test_it_is_the_formula_with_a_matrix_square_root():
    rng = np.random.default_rng(1)
    first, second = moments(gaussian(rng, 500, 12)), moments(gaussian(rng, 400, 12, 0.5))
    root = scipy.linalg.sqrtm(first.covariance @ second.covariance).real
    expected = np.sum((first.mean - second.mean) ** 2) + np.trace(first.covariance + second.covariance - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


def test_gaussians_that_share_their_axes_have_a_closed_form():
    """sum (m - m')^2 + sum (s - s')^2, turned or not."""
    rng = np.random.default_rng(2)
    (mean, other), (spread, width) = rng.normal(size=(2, 5)), rng.uniform(0.1, 3, size=(2, 5))
    expected = np.sum((mean - other) ** 2) + np.sum((spread - width) ** 2)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    for axes in (np.eye(5), turn):
        first = exactly(axes @ mean, axes @ np.diag(spread**2) @ axes.T)
        second = exactly(axes @ other, axes @ np.diag(width**2) @ axes.T)
        assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)


def test_fewer_rows_than_features():
    """tr (S S')^(1/2) is the sum of singular values of one set of centred rows times the other, by the sizes."""
    rng = np.random.default_rng(3)
    one, two = rng.normal(size=(20, 50)), rng.normal(size=(15, 50)) + 0.1
    a, b = one - one.mean(0), two - two.mean(0)
    overlap = np.linalg.svd(a @ b.T, compute_uv=False).sum() / np.sqrt(19 * 14)
    expected = np.sum((one.mean(0) - two.mean(0)) ** 2) + np.sum(a**2) / 19 + np.sum(b**2) / 14 - 2 * overlap
    assert frechet_distance(moments(one), moments(two)) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(moments(one), moments(one)) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(moments(one), moments(one + 2)) == pytest.approx(4 * 50, rel=1e-6)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="features have 1 rows: a covariance needs at least 2"):
        frechet_distance(moments(np.zeros((1, 3))), moments(np.eye(3)))
    with pytest.raises(UserError, match="moments of 3 and of 4 features"):
        frechet_distance(moments(np.eye(3)), moments(np.eye(4)))
    with pytest.raises(UserError, match="moments of 4 features, not 3"):
        Moments(3).merge(moments(np.eye(4)))
    with pytest.raises(UserError, match="features have 4 columns, not 3"):
        Moments(3).update(np.eye(4))
    with pytest.raises(UserError, match="features column 1 is NaN or infinite"):
        Moments(3).update([[0, np.nan, 0]])
