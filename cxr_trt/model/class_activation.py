"""A backbone, global pooling and one linear layer: class maps come from the linear layer's weights."""

from torch import Tensor, nn
from torch.nn.functional import conv2d

from cxr_trt.findings import FINDINGS
from cxr_trt.model.crop_network import CropNetwork


class ClassActivationNetwork(CropNetwork):
    """Crops [N, 3, H, W] to logits [N, 14] and class activation maps [N, 14, h, w].

    A class activation map (Zhou et al. 2016, CVPR, sec. 2) is the sum of the activations, weighted as the prediction
    layer weighs their pooled values. With average pooling, its mean is the logit without the bias; with another
    pooling, the map shows where a finding is, but is not what is pooled.

    features: to activations [N, any, h, w], such as those of `cxr_trt.model.backbones`.
    transition: what lies between them and the pooling; [N, channels, h, w].
    pool: one of `cxr_trt.model.global_pooling`.
    stem: what crops pass first, to what `features` takes.
    """

    def __init__(
        self,
        features: nn.Module,
        transition: nn.Module,
        pool: nn.Module,
        channels: int,
        stem: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem or nn.Identity()
        self.features, self.transition, self.pool = features, transition, pool
        self.prediction = nn.Linear(channels, len(FINDINGS))

    def outputs_and_maps(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        activations = self.transition(self.features(self.stem(crops)))
        outputs = self.prediction(self.pool(activations))
        return outputs, conv2d(activations, self.prediction.weight[:, :, None, None])
