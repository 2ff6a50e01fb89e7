"""Times the fit of the anchors against the published one at its sizes: 20 units, 17,568 images, 32-d ReLU tokens.

    python benchmarks/anchors.py

The published loop is written here from its description: code/ldm/modules/gaussian/DyGA.py of youngjun-jun/dis-dis at
538e374 (eight random points as first means, thirty EM steps of one Gaussian after the other in float32, an
eigen-decomposition after each that nothing uses, splits by dispersion or a coin, a filter, thirty steps more). All
threads serve one unit at a time. Tokens are those of an untrained extractor's unit networks on scalars of one, two and
four clusters.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import record
from unweave.config import AnchorConfig
from unweave.nn.anchors import make_anchors, mixture
from unweave.nn.encoder import UnitMLPs

NUM_IMAGES, NUM_UNITS, TOKEN_DIM, K_MAX = 17_568, 20, 32, 32
NUM_STEPS, NUM_START, RIDGE = 30, 8, 1e-6
NUM_RUNS, RUN_STEPS = 5, 6


class PublishedFit:
    """One unit's Gaussians as the published loop fits them, to points (n, D) float32."""

    def __init__(self, points: Tensor, num: int):
        self.points = points
        self.means = points[torch.randperm(len(points))[:num]].clone()
        self.covariances = torch.eye(points.shape[1]).repeat(num, 1, 1)
        self.weights = torch.full((num,), 1 / num)

    def answers(self) -> Tensor:
        """E step: responsibilities (n, K)."""
        ridge = RIDGE * torch.eye(self.points.shape[1])
        columns = []
        for weight, mean, covariance in zip(self.weights, self.means, self.covariances):
            try:
                density = MultivariateNormal(mean, covariance + ridge).log_prob(self.points)
            except (RuntimeError, ValueError):  # a covariance that is not positive definite: no answers
                density = torch.full((len(self.points),), -torch.inf)
            columns.append(weight.log() + density)
        joint = torch.stack(columns, dim=1)
        return (joint - joint.logsumexp(1, keepdim=True)).exp()

    def step(self) -> None:
        answers = self.answers()
        for k, column in enumerate(answers.T):
            count = column.sum() + 1e-12  # without it an empty Gaussian would end the published fit
            self.means[k] = (column[:, None] * self.points).sum(0) / count
            centred = self.points - self.means[k]
            self.covariances[k] = (column[:, None] * centred).T @ centred / count
            self.weights[k] = count / len(self.points)
            normed = self.covariances[k] / self.covariances[k].norm().clamp_min(1e-12)
            torch.linalg.eigvalsh(normed + RIDGE * torch.eye(len(normed)))  # the subspaces that nothing uses

    def run(self) -> "PublishedFit":
        for _ in range(NUM_STEPS):
            self.step()
        return self

    def split(self) -> None:
        splits = 0
        while splits < 3 and len(self.weights) < K_MAX:
            members = self.answers() > 0.5
            groups = [self.points[column] for column in members.T]
            spread = torch.stack([(g - g.mean(0)).norm(dim=1).mean() if len(g) else torch.zeros(()) for g in groups])
            chosen = ((spread > 0.5) | (torch.rand(len(spread)) < 0.5)).nonzero().flatten().tolist()
            chosen = [k for k in chosen if len(groups[k]) >= 2]
            if not chosen:
                return
            for k in chosen:
                child = PublishedFit(groups[k], 2).run()
                keep = torch.arange(len(self.weights)) != k
                self.means = torch.cat([self.means[keep], child.means])
                self.covariances = torch.cat([self.covariances[keep], child.covariances])
                self.weights = torch.cat([self.weights[keep], child.weights / 2])
                self.weights /= self.weights.sum()
                if not (spread > 0.5).any() or len(self.weights) >= K_MAX:
                    break
                splits += 1

    def whole(self) -> "PublishedFit":
        self.run()
        self.split()
        keep = self.answers().sum(0) >= 10
        if keep.any():
            self.means, self.covariances = self.means[keep], self.covariances[keep]
            self.weights = self.weights[keep] / self.weights[keep].sum()
        return self.run()


def tokens_and_scalars() -> tuple[UnitMLPs, Tensor]:
    """The unit networks of an untrained extractor, and scalars (n, N) of one, two and four clusters by turns."""
    torch.manual_seed(0)
    units = UnitMLPs(NUM_UNITS, (1, 256, 512, TOKEN_DIM), final_relu=True)
    levels = torch.tensor([1, 2, 4]).repeat(NUM_UNITS)[:NUM_UNITS]
    place = (torch.rand(NUM_IMAGES, NUM_UNITS) * levels).floor() - (levels - 1) / 2
    return units, 3 * place + 0.5 * torch.randn(NUM_IMAGES, NUM_UNITS)


def seconds_per_step(points: Tensor) -> dict[str, Any]:
    """One EM step of one unit with 32 Gaussians of full covariance in 32 dimensions, from the same start.

    As in a fit, steps follow one another: runs of `RUN_STEPS` after one that is not counted, theirs and ours by turns
    so that a busy moment of the machine hits both. Medians over all steps.
    """
    theirs = PublishedFit(points, K_MAX)
    wide = points.double()
    ours = mixture.make_mixture(
        theirs.weights.double()[None], theirs.means.double()[None], theirs.covariances.double()[None], reg_covar=RIDGE
    )
    held = mixture.Points(wide[None], torch.ones(1, len(wide), dtype=torch.float64))

    def our_step() -> None:
        nonlocal ours
        moments, _ = mixture.expect(held, ours)
        ours = mixture.maximise(ours, moments, RIDGE)

    published_s: list[float] = []
    ours_s: list[float] = []
    for _ in range(NUM_RUNS):
        for step, seconds in ((theirs.step, published_s), (our_step, ours_s)):
            step()
            for _ in range(RUN_STEPS):
                start = time.perf_counter()
                step()
                seconds.append(time.perf_counter() - start)
    published, our = statistics.median(published_s), statistics.median(ours_s)
    return {"published_s": published, "ours_s": our, "times_faster": published / our, "steps": len(ours_s)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    units, scalars = tokens_and_scalars()
    with torch.no_grad():
        tokens = units(scalars)
        low, high = tokens.amin((0, 2)), tokens.amax((0, 2))
        scaled = (tokens - high[:, None]) / (high - low + 1e-6)[:, None]
        step = seconds_per_step(scaled[:, 0])

        start = time.perf_counter()
        anchors = make_anchors(AnchorConfig(), NUM_UNITS, TOKEN_DIM)
        anchors.fit(scalars, units, seed=0)
        ours_s = time.perf_counter() - start

        found = []
        start = time.perf_counter()
        for unit in range(NUM_UNITS):
            found.append(len(PublishedFit(scaled[:, unit].contiguous(), NUM_START).whole().weights))
            print(f"published fit: unit {unit}, {found[-1]} Gaussians, {time.perf_counter() - start:.0f} s", flush=True)
        published_s = time.perf_counter() - start
    numbers: dict[str, Any] = {
        "torch_threads": torch.get_num_threads(),
        "em_step_32_gaussians_32_dimensions_full": step,
        "whole_fit": {
            "published_s": published_s,
            "ours_s": ours_s,
            "times_faster": published_s / ours_s,
            "gaussians_published": found,
            "gaussians_ours": anchors.num_alive.tolist(),
            "clusters_in_the_scalars": torch.tensor([1, 2, 4]).repeat(NUM_UNITS)[:NUM_UNITS].tolist(),
        },
    }
    print(record.write("anchors", numbers).read_text())


if __name__ == "__main__":
    main()
