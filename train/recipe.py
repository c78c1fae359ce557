"""Recipes: everything but the data that determines a training, as a TOML file (train/recipes)."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from cxr_trt.errors import UsageError
from cxr_trt.spec import CROP_MARGIN_STEP
from cxr_trt.systems import find_system
from cxr_trt.systems.edge import EDGE
from cxr_trt.systems.li2018 import LI2018
from cxr_trt.systems.system import Split
from cxr_trt.systems.yan2018 import YAN2018
from cxr_trt.views import NETWORK_STRIDE
from train.augment import Augmentation
from train.losses import Loss

RECIPES = Path(__file__).with_name("recipes")

Optimizer = Literal["adam", "sgd"]
Selection = Literal["loss", "auc"]
NOT_NEGATIVE = (
    *("weight_decay", "momentum", "average", "anneal", "auxiliary", "scale", "rotation", "contrast", "translation"),
    *("min_area", "rate_factor", "stop_after", "box_weight", "teacher", "equivariance"),
    *("map_teacher", "feature_teacher"),
)
FOR_POOLED_MAPS = (
    "anneal",
    "prior_bias",
    "auxiliary",
    "equivariance",
    "map_teacher",
    "feature_teacher",
)  # fields, which work with the networks of these systems:
WITH_POOLED_MAPS = (YAN2018, EDGE)
MOVING_CROPS = ("scale", "rotation", "translation", "min_area", "crop_spread")  # fields


@dataclass(frozen=True)
class Recipe:
    """The fields of a recipe file.

    setting: the network, a setting of one of `cxr_trt.systems`.
    image_size, crop_size: pixels. A crop is cut at random from the resized image and mirrored half of the time.
    crop_spread: pixels by which the crops of a step may be larger or smaller than `crop_size`, at random, in steps of
        the network's stride; 0, as in the paper, for none. For dense views, which show the network whole images.
    batch: images per step.
    accumulate: number of parts that a batch is computed in, each with its own batch statistics.
    learning_rate: of the optimizer.
    patience: epochs without a better validation loss until the rate is multiplied by `rate_factor`.
    loss: "bce", the mean of binary cross-entropies, "w-cel" or "w-cel-finding" (`train.losses`).
    rate_factor: what the rate is multiplied by, on a plateau or at `rate_steps`.
    rate_steps: numbers of epochs after which the rate is multiplied, instead of the plateau rule.
    select: whether the best weights are those with the least validation "loss", or the highest mean validation "auc".
    stop_after: epochs without better weights until the training ends; 0 for never.
    box_weight: weight of the loss of boxes (lambda in Li et al. 2018, `train.losses.box_cross_entropy`), which a
        training with --boxes learns; 0 for none. For networks of `li2018`, which see whole images.
    teacher: share of a teacher's probabilities in the targets of a training with --teacher (`train.teacher`), beside
        that of the labels; 0 for none.
    map_teacher, feature_teacher: weights of `train.inner_teacher.map_distance` and `feature_distance` to the networks
        of a training with --inner-teacher; 0 for none. For networks that pool their class maps.
    split: how X-rays are divided (`train.data.read_data`): "official", "random by patient", or "random by image", with
        which X-rays of a patient are on both sides and every AUC is too high.
    part: the part of the network that is trained, while the others stay as they are; empty for the whole network.
    stages: recipes to train one after the other, each from the best weights of the one before. In the file, a table
        [[stage]] has a part and the fields that differ in it.
    optimizer: "adam" or "sgd".
    betas: of Adam, which needs them.
    momentum: of SGD.
    weight_decay: of AdamW, or of SGD.
    bfloat16: whether to use mixed precision on a CPU too: faster if it multiplies bfloat16 (AVX-512 BF16, AMX).
    save_every: steps between two saved states.
    seed: random seed for the weights, the order, the crops and the validation set.

    The following are in no publication, and help if there are few images; 0, 1, false or nothing switches them off.
    The pooling, the bias, the auxiliary targets and the equivariance are those of networks that pool their class maps.

    one_cycle: whether the rate rises to `learning_rate` and falls to zero over all epochs, instead of the plateau rule.
    average: decay per step of a moving average of the weights, which is then validated and kept.
    anneal: epochs over which k of the pooling falls from all cells, which is an average, to the network's own k.
    prior_bias: whether the first scores are the frequencies of the findings.
    auxiliary: weight of the loss of `train.auxiliary`.
    equivariance: weight of `train.objective.equivariance_loss`: class maps must not depend on where a crop is cut.
    scale, rotation, contrast, translation, min_area: see `train.augment.Augmentation`.
    backbone_rate: factor of `learning_rate` for the backbone, whose weights are a good start already.
    frozen: names of modules that stay as they start, batch statistics included; the first ones of the backbone, whose
        gradients take most of the time.
    """

    setting: str
    image_size: int
    crop_size: int
    batch: int
    learning_rate: float
    patience: int
    epochs: int
    loss: Loss = "bce"
    optimizer: Optimizer = "adam"
    betas: tuple[float, ...] = ()
    momentum: float = 0.0
    rate_factor: float = 0.1
    rate_steps: tuple[int, ...] = ()
    select: Selection = "loss"
    stop_after: int = 0
    box_weight: float = 0.0
    teacher: float = 0.0
    map_teacher: float = 0.0
    feature_teacher: float = 0.0
    split: Split = "official"
    part: str = ""
    stages: tuple["Recipe", ...] = ()
    crop_spread: int = 0
    accumulate: int = 1
    bfloat16: bool = False
    save_every: int = 500
    seed: int = 0
    weight_decay: float = 0.0
    one_cycle: bool = False
    average: float = 0.0
    anneal: int = 0
    prior_bias: bool = False
    auxiliary: float = 0.0
    equivariance: float = 0.0
    scale: float = 0.0
    rotation: float = 0.0
    contrast: float = 0.0
    translation: float = 0.0
    min_area: float = 0.0
    backbone_rate: float = 1.0
    frozen: tuple[str, ...] = ()

    def chosen(self) -> dict[str, Any]:
        """The fields that differ from their defaults, so that a recipe stays the same when recipes get a new field."""
        own = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        return own | {"stages": [stage.chosen() for stage in self.stages]}

    @property
    def augmentation(self) -> Augmentation:
        """The random changes of the training images, besides cropping and mirroring."""
        return Augmentation(self.scale, self.rotation, self.contrast, self.translation, self.min_area)

    def __post_init__(self) -> None:
        positive = (
            "learning_rate",
            "backbone_rate",
            "image_size",
            "crop_size",
            "batch",
            "patience",
            "epochs",
            "accumulate",
        )
        for name in (*positive, "save_every"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("momentum", "average", "scale", "contrast", "rate_factor", "min_area"):
            if not getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be below 1")
        if self.anneal >= self.epochs:
            raise UsageError(f"anneal is {self.anneal}; it must be less than the {self.epochs} epochs")
        self._check_system()
        self._check_boxes()
        if self.teacher and (self.loss != "bce" or self.teacher > 1):
            raise UsageError(f"teacher is {self.teacher}; it must be 1 or less, and the loss bce")
        self._check_optimizer()
        self._check_schedule()
        margin = self.image_size - self.crop_size
        if margin and find_system(self.setting).planes > 1:
            raise UsageError(
                f"crop_size {self.crop_size} must be image_size {self.image_size}: {self.setting} sees whole images"
            )
        if margin < 0 or margin % CROP_MARGIN_STEP or self.crop_size % NETWORK_STRIDE:
            raise UsageError(
                f"crop_size {self.crop_size} must be a multiple of {NETWORK_STRIDE}, and smaller than image_size "
                f"{self.image_size} by 0 or a multiple of {CROP_MARGIN_STEP}"
            )
        if self.crop_spread % NETWORK_STRIDE or not 0 <= self.crop_spread <= min(
            margin, self.crop_size - NETWORK_STRIDE
        ):
            raise UsageError(
                f"crop_spread {self.crop_spread} must be a multiple of {NETWORK_STRIDE} by which a crop of "
                f"{self.crop_size} can grow and shrink in an image of {self.image_size}"
            )
        if self.batch % self.accumulate:
            raise UsageError(f"batch {self.batch} cannot be divided into {self.accumulate} equal parts")

    def _check_schedule(self) -> None:
        for name, choices in (("select", get_args(Selection)), ("split", get_args(Split))):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be {' or '.join(choices)}")
        steps = self.rate_steps
        if any(type(step) is not int or step < 1 for step in steps) or list(steps) != sorted(set(steps)):
            raise UsageError(f"rate_steps {list(steps)} must be numbers of epochs that rise from 1 or more")
        if self.one_cycle and (steps or self.stop_after):
            raise UsageError("one_cycle sets the rates of all steps; leave out rate_steps and stop_after")
        if self.crop_spread and self.min_area:
            raise UsageError("crop_spread and min_area both choose the size of crops; leave one of them out")

    def _check_system(self) -> None:
        system = find_system(self.setting)
        if self.stages:
            trained = tuple(stage.part for stage in self.stages)
            if trained != system.parts:
                raise UsageError(
                    f"its stages train {', '.join(trained)}; {self.setting} is trained in "
                    f"{', '.join(system.parts) or 'no stages'}"
                )
        elif self.part not in system.parts + ("",) * (not system.parts):
            how = f"in stages: give a [[stage]] for each of {', '.join(system.parts)}" if system.parts else "as a whole"
            raise UsageError(f"part is {self.part!r}; {self.setting} is trained {how}")
        if self.loss == "w-cel-finding" and system.parts:
            raise UsageError(f"w-cel-finding weighs the findings alone, but {self.setting} learns more; use bce")
        used = [name for name in FOR_POOLED_MAPS if getattr(self, name)]
        if used and system not in WITH_POOLED_MAPS:
            fitting = [name for one in WITH_POOLED_MAPS for name in one.settings]
            raise UsageError(
                f"{used[0]} works with networks that pool their class maps only ({', '.join(fitting)}); leave it out "
                f"for {self.setting}"
            )

    def _check_boxes(self) -> None:
        if not self.box_weight:
            return
        if find_system(self.setting) is not LI2018 or self.loss != "bce":
            raise UsageError(
                f"box_weight is for the loss bce and the networks {', '.join(LI2018.settings)}; leave it out"
            )
        if moved := [name for name in MOVING_CROPS if getattr(self, name)]:
            raise UsageError(f"box_weight needs boxes that stay where they are; leave out {', '.join(moved)}")
        if self.split == "random by image":
            raise UsageError("box_weight needs a split by patient; make one with python -m train.boxed_folds")
        if self.image_size != self.crop_size:
            raise UsageError(f"box_weight needs whole images; crop_size must be image_size {self.image_size}")

    def _check_optimizer(self) -> None:
        for name, choices in (("loss", get_args(Loss)), ("optimizer", get_args(Optimizer))):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be {' or '.join(choices)}")
        adam = self.optimizer == "adam"
        if adam and (len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas)):
            raise UsageError(f"betas {list(self.betas)} must be two numbers from 0 to below 1")
        if self.momentum if adam else self.betas:
            name, other = ("momentum", "sgd") if adam else ("betas", "adam")
            raise UsageError(f"{name} is of the optimizer {other}; leave it out with {self.optimizer}")


def read_recipe(name: str) -> Recipe:
    """Read one of train/recipes by its name, or a .toml file by its path.

    Raises:
        UsageError: there is no such recipe, or it has a missing, unknown or invalid field.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        tables = fields.pop("stage", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise UsageError("stage must be tables [[stage]]")
        stages = tuple(Recipe(**_typed({**fields, **table})) for table in tables)
        return Recipe(**_typed(fields), stages=stages)
    except FileNotFoundError as error:
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.toml")))
        raise UsageError(f"{name}: no such recipe; name a .toml file or one of {known}") from error
    except (tomllib.TOMLDecodeError, OSError, TypeError, UsageError) as error:
        raise UsageError(f"{path}: {str(error).removeprefix('Recipe.__init__() ')}") from error


def _typed(fields: dict[str, Any]) -> dict[str, Any]:
    types: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Recipe) if field.name != "stages"}
    if unknown := fields.keys() - types.keys():
        raise UsageError(f"unknown field {', '.join(sorted(unknown))}; a recipe has {', '.join(types)}")
    for name, value in fields.items():
        if types[name] is float and type(value) is int:
            fields[name] = float(value)
        elif types[name] in (int, str, float, bool) and type(value) is not types[name]:
            raise UsageError(f"{name} is {value!r}; it must be of type {types[name].__name__}")
    for name in ("betas", "rate_steps", "frozen"):
        if isinstance(fields.get(name), list):
            fields[name] = tuple(fields[name])
    return fields
