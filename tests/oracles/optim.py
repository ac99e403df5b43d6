"""Lookahead and SGD in plain sight: one tensor, one step, one formula at a time."""

from torch import Tensor


class SlowLookahead:
    """Zhang et al. 2019, algorithm 1, after each inner step of any optimizer."""

    def __init__(self, weights: list[Tensor], *, k: int, alpha: float) -> None:
        self.weights, self.k, self.alpha, self.t = weights, k, alpha, 0
        self.phi = [weight.detach().clone() for weight in weights]

    def step(self) -> None:
        self.t += 1
        if self.t % self.k == 0:
            for index, theta in enumerate(self.weights):
                self.phi[index] = self.phi[index] + self.alpha * (theta.detach() - self.phi[index])
                theta.data.copy_(self.phi[index])


class SlowSgd:
    """v = mu v + (g + wd w) starting from v = g + wd w; w = w - lr v."""

    def __init__(self, weights: list[Tensor], lrs: list[float], decays: list[float]) -> None:
        self.weights, self.lrs, self.decays = weights, lrs, decays
        self.velocities: list[Tensor | None] = [None] * len(weights)

    def step(self, *, scale: float, momentum: float, max_grad_norm: float) -> None:
        norm = sum(float(weight.grad.double().square().sum()) for weight in self.weights) ** 0.5
        shrink = min(1.0, max_grad_norm / (norm + 1e-6))
        for i, weight in enumerate(self.weights):
            gradient = weight.grad * shrink + self.decays[i] * weight.detach()
            previous = self.velocities[i]
            velocity = gradient if previous is None else momentum * previous + gradient
            self.velocities[i] = velocity
            weight.data.sub_(self.lrs[i] * scale * velocity)
