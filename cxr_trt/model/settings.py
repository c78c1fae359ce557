"""The network's settings: the paper's network, CheXNet, and the three ablations of the paper's table 2."""

from dataclasses import dataclass
from typing import Literal

from cxr_trt.errors import UsageError
from cxr_trt.spec import Pooling

WeightsKind = Literal["untrained", "demonstration", "trained"]
CAUTIONS: dict[WeightsKind, tuple[str, ...]] = {
    "untrained": ("untrained model: its probabilities mean nothing",),
    "demonstration": ("demonstration model, trained on few images: research use only, not for results",),
    "trained": (),
}
"""The warnings on every result, by the kind of weights."""

CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".tar")  # a .pth.tar file is a state dict, not an archive


@dataclass(frozen=True)
class ModelSettings:
    """The settings that distinguish the networks of this family.

    squeeze_excitation: whether each transition has a gate (sec. 3.2, eqs. 1-3).
    maps_per_finding: M of the multi-map transfer layer (sec. 3.3).
    channels: the number of input channels.
    k_max, k_min, alpha: max-min pooling (eq. 4); with alpha = 0, only the maxima count.
    """

    squeeze_excitation: bool = True
    maps_per_finding: int = 12
    k_max: int = 1
    k_min: int = 1
    alpha: float = 0.7
    channels: int = 3

    def __post_init__(self) -> None:
        if type(self.squeeze_excitation) is not bool:
            raise UsageError(f"squeeze_excitation is {self.squeeze_excitation!r}; it must be true or false")
        for name, most in (("maps_per_finding", 1024), ("k_max", 4096), ("k_min", 4096), ("channels", 3)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise UsageError(f"{name} is {value!r}; it must be from 1 to {most}")

    @property
    def pooling(self) -> Pooling:
        return Pooling(self.k_max, self.k_min, self.alpha)


SETTINGS = {
    "paper": ModelSettings(),
    "chexnet": ModelSettings(squeeze_excitation=False, maps_per_finding=1, alpha=0.0),
    "no-se": ModelSettings(squeeze_excitation=False),
    "single-map": ModelSettings(maps_per_finding=1),
    "max-only": ModelSettings(alpha=0.0),
}
