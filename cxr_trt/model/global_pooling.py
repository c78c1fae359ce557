"""Global pooling: a map becomes one number (Wang et al. 2017 compare all three).

Each layer takes [N, C, H, W] to [N, C].
"""

from torch import Tensor, nn

from cxr_trt.errors import UsageError


class AveragePool(nn.Module):
    """The mean of all cells."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


class MaxPool(nn.Module):
    """The largest cell."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.amax((2, 3))


class LsePool(nn.Module):
    """Log-sum-exp: x* + log(mean(exp(r (x - x*)))) / r, the mean over all cells (Wang et al. 2017, eq. 3).

    It approaches the average as r approaches 0, and the maximum as r grows. The paper writes x* = max |x|, with which
    the exponentials of maps that are negative throughout underflow; here x* = max x, which gives the same number.
    Computed in float32, whatever the precision around it.

    Raises:
        UsageError: r is not above 0.
    """

    def __init__(self, r: float) -> None:
        super().__init__()
        if not r > 0:
            raise UsageError(f"r of the log-sum-exp pooling is {r}; it must be above 0")
        self.r = r

    def forward(self, maps: Tensor) -> Tensor:
        cells = maps.flatten(2).float()
        highest = cells.amax(2, keepdim=True).detach()  # any constant gives the same gradient
        means = (self.r * (cells - highest)).exp().mean(2)
        return highest.squeeze(2) + means.log() / self.r
