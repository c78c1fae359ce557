import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from training_data import write_noise

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from cxr_trt.errors import CheckpointError, UsageError  # noqa: E402
from cxr_trt.model.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from cxr_trt.model.network import Network  # noqa: E402
from cxr_trt.model.settings import SETTINGS  # noqa: E402
from cxr_trt.outputs import locked  # noqa: E402
from cxr_trt.systems import find_system  # noqa: E402
from cxr_trt.systems.yan2018 import YAN2018  # noqa: E402
from train.__main__ import main  # noqa: E402
from train.auxiliary import AuxiliaryHead  # noqa: E402
from train.batches import Batch, LabelledImages  # noqa: E402
from train.group import Group  # noqa: E402
from train.log import Log  # noqa: E402
from train.loop import Trainer  # noqa: E402
from train.recipe import RECIPES, Recipe, read_recipe  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
RECIPE = 'setting = "paper"\nimage_size = 48\ncrop_size = 32\nbatch = 4\nlearning_rate = 1e-3\nbetas = [0.9, 0.99]\n'
RECIPE += "patience = 1\nepochs = 2\nsave_every = 2\nweight_decay = 0.1\none_cycle = true\naverage = 0.5\nanneal = 1\n"
RECIPE += "prior_bias = true\nauxiliary = 0.5\nscale = 0.1\nrotation = 10\ncontrast = 0.1\n"


def training_facts(path):
    """What the header of a checkpoint says of the training."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["cxr_trt"])["training"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """16 small images with labels, 3 of them for validation, and a recipe."""
    folder = tmp_path_factory.mktemp("data")
    write_noise(folder)
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


def options(folder, out):
    inputs = ["--labels", folder / "labels.csv", "--images", folder, "--cache", folder / "cache"]
    return [*map(str, inputs), "--device", "cpu", "--out", str(out)]


def run_main(recipe, *arguments):
    """A training in this process."""
    result = CliRunner().invoke(main, [str(recipe), *arguments])
    assert result.exit_code == 0, result.output
    return result.stderr


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(folder, tmp_path):
    """Killed after the first of two states of the first epoch; compared with a run that nothing disturbed."""
    command = [sys.executable, "-m", "train", folder / "tiny.toml", *options(folder, tmp_path / "a")]
    killed = subprocess.Popen(command, cwd=ROOT, env=ONE_THREAD, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "a" / "state.pt").exists() and killed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
    position = torch.load(tmp_path / "a" / "state.pt", weights_only=True)
    assert (position["epoch"], position["step"]) == (0, 2)
    assert "continuing at epoch 1, step 3" in run_main(folder / "tiny.toml", *options(folder, tmp_path / "a"))
    assert "continuing" not in run_main(folder / "tiny.toml", *options(folder, tmp_path / "b"))
    for name in ("best.safetensors", "last.safetensors"):
        one, other = load_file(tmp_path / "a" / name), load_file(tmp_path / "b" / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    facts, others = (training_facts(tmp_path / run / "last.safetensors") for run in "ab")
    assert facts | {"hours": 0} == others | {"hours": 0}
    assert (facts["epoch"], facts["recipe"]["setting"], len(facts["split_hash"])) == (2, "paper", 64)
    assert load_checkpoint(tmp_path / "a" / "best.safetensors").weights == "trained"


def test_a_run_with_another_recipe_or_other_data_is_not_continued(tmp_path):
    run = trainer(tmp_path, setting="chexnet")
    run.step, run.loss_sum = 1, run.loss_sum + 0.75
    run._save()
    again = trainer(tmp_path, setting="chexnet")
    assert (again.epoch, again.step, float(again.loss_sum)) == (0, 1, 0.75)
    with pytest.raises(UsageError, match="belongs to a run with another recipe;"):
        trainer(tmp_path, setting="chexnet", patience=4)
    with pytest.raises(UsageError, match="belongs to a run with another labels;"):
        trainer(tmp_path, setting="chexnet", images=21)


def trainer(out, size=32, setting="paper", images=20, group=None, **changes):
    """A trainer on images of 8 x 8 blocks of grey, the last four of them for validation."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, size // 8, size // 8), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    labels = rng.integers(0, 2, (images, 14)).astype(np.uint8)
    fields = {"batch": 16, "learning_rate": 4e-3, "patience": 5, "epochs": 1} | changes
    if fields.get("optimizer") != "sgd":
        fields.setdefault("betas", (0.9, 0.99))
    torch.manual_seed(0)
    return Trainer(
        Recipe(setting, size, size, **fields),
        find_system(setting).build(setting),
        LabelledImages(pixels, labels, np.full((images, 3), np.nan, np.float32), size),
        np.arange(images - 4),
        np.arange(images - 4, images),
        "hash",
        out,
        group or Group("cpu"),
    )


def batch(run):
    """All training images of a trainer."""
    arrays = run.images.pixels, run.images.labels.astype("f4"), run.images.traits
    return Batch(*(torch.from_numpy(array[run.train]) for array in arrays))


LEARNERS = ("chexnet", "max-only", "no-se", "paper", "single-map", "demo-1")


def test_the_other_recipes_of_the_papers_family_train_one_of_these_networks():
    settings = {read_recipe(path.stem).setting for path in RECIPES.glob("*.toml")}
    assert settings & YAN2018.settings.keys() == {read_recipe(name).setting for name in LEARNERS}


@pytest.mark.parametrize("name", LEARNERS)
def test_eight_images_are_learned_by_heart(tmp_path, name):
    recipe = read_recipe(name)
    changes = {"prior_bias": recipe.prior_bias, "weight_decay": recipe.weight_decay}
    run = trainer(tmp_path, size=64, setting=recipe.setting, images=12, batch=8, **changes)
    run.network.train()
    losses = [float(run.update(batch(run))) for _ in range(12)]
    assert 0.5 < losses[0] < 1.5
    assert losses[-1] < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "size", "part", "rate"), [("agcnn-resnet50", 64, "fusion", 1e-4), ("yao2017-b2", 128, "", 4e-3)]
)
def test_what_a_short_training_does_not_show_to_learn_lowers_its_loss(tmp_path, setting, size, part, rate):
    """See docs/studies/systems.md."""
    run = trainer(tmp_path, size=size, setting=setting, images=12, batch=8, part=part, learning_rate=rate)
    run.network.eval()
    run.trained.train()
    losses = [float(run.update(batch(run))) for _ in range(24)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("parts", [1, 2])
def test_the_weighted_loss_counts_over_the_whole_batch(tmp_path, parts):
    """However many parts it is computed in; with a step of SGD."""
    run = trainer(
        tmp_path, size=64, setting="alexnet-max", loss="w-cel", optimizer="sgd", momentum=0.9, accumulate=parts
    )
    run.images.targets[run.train[8:]] = 0  # the second half has no ones
    run.network.eval()
    examples = batch(run)
    with torch.no_grad():
        p = torch.sigmoid(run.objective.scores(run.network, examples.crops)).double().numpy()
    y = examples.labels.numpy()
    expected = -(y * np.log(p) / y.mean() + (1 - y) * np.log(1 - p) / (1 - y).mean()).mean()
    before = run.network.prediction.bias.detach().clone()
    assert float(run.update(examples)) == pytest.approx(expected, rel=1e-5)
    step = run.network.prediction.bias.detach() - before
    torch.testing.assert_close(step, -4e-3 * run.network.prediction.bias.grad)
    gradient = ((1 - y) / (1 - y).mean() * p - y / y.mean() * (1 - p)).mean(0) / 14
    np.testing.assert_allclose(run.network.prediction.bias.grad, gradient, rtol=1e-4, atol=1e-7)


def test_the_weighted_validation_loss_counts_over_all_validation_images(tmp_path):
    run = trainer(tmp_path, size=64, setting="alexnet-max", loss="w-cel", images=40, batch=32, accumulate=16)
    run.val = np.arange(34, 40)  # in parts of two
    run.images.targets[34:38] = 0
    loss, _ = run.objective.validate(run.averaged.module.eval(), run.images, run.val)
    crops, y = torch.from_numpy(run.images.pixels[34:]), run.images.targets[34:].double().numpy()
    with torch.no_grad():
        p = torch.sigmoid(run.objective.scores(run.network.eval(), crops)).double().numpy()
    expected = -(y * np.log(p) / y.mean() + (1 - y) * np.log(1 - p) / (1 - y).mean()).mean()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_mixed_precision_gives_nearly_the_same_step(tmp_path):
    """bfloat16 on the CPU: what a GPU runs too."""
    losses, moves = [], []
    for bfloat16 in (False, True):
        run = trainer(tmp_path, size=64, bfloat16=bfloat16, auxiliary=0.5, learning_rate=1e-3)
        run.images.traits[:] = 0.5
        run.network.train()
        before = run.network.get_parameter("transfer.conv.weight").detach().clone()
        losses.append(float(run.update(batch(run))))
        moves.append((run.network.get_parameter("transfer.conv.weight").detach() - before).sign())
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.02)
    assert (moves[0] == moves[1]).float().mean() > 0.9


def test_curves_can_be_read_by_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer(tmp_path, setting="chexnet", epochs=2).run()
    events = EventAccumulator(str(tmp_path / "curves")).Reload()
    assert {"epoch_loss", "val_loss", "rate"} <= set(events.Tags()["scalars"])
    losses = events.Scalars("val_loss")
    assert [event.step for event in losses] == [1, 2]
    assert losses[-1].value == pytest.approx(training_facts(tmp_path / "last.safetensors")["val_loss"], rel=1e-6)


def test_the_first_step_is_adam_on_the_mean_over_images_and_findings(tmp_path):
    run = trainer(tmp_path, learning_rate=1e-3)
    run.network.train()
    before = {name: value.detach().clone() for name, value in run.network.named_parameters()}
    pixels, labels, *_ = batch(run)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    crops = (pixels[:, None] / 255 - mean[:, None, None]) / std[:, None, None]
    p = torch.sigmoid(run.network(crops))
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).sum() / (16 * 14)
    assert float(run.update(batch(run))) == pytest.approx(float(expected.detach()), rel=1e-4)
    for part in ("features.conv0", "features.transition1.se.squeeze", "features.transition3.se.excite", "transfer."):
        (name, *_) = [name for name in before if name.startswith(part)]
        parameter = run.network.get_parameter(name)
        assert parameter.grad.abs().max() > 0
        moved = (parameter.detach() - before[name]).abs()
        assert moved.max() == pytest.approx(1e-3, rel=0.01)  # Adam's first step is the rate, whatever the gradient
    assert all(value.grad is not None for value in run.network.parameters())
    assert run.optimizer.param_groups[0]["betas"] == (0.9, 0.99)


def test_the_backbone_takes_a_share_of_the_rate_and_what_is_frozen_takes_none(tmp_path):
    frozen = ("features.conv0", "features.norm0", "features.denseblock1")
    run = trainer(tmp_path, size=64, learning_rate=1e-3, backbone_rate=0.25, frozen=frozen, auxiliary=0.5)
    run.images.traits[:] = 0.5
    before = {name: value.detach().clone() for name, value in run.network.state_dict().items()}
    run._train_epoch(Log(tmp_path / "curves", 0, 1, silent=True))
    assert run.step == 1
    steps = {name: (value - before[name]).abs().max() for name, value in run.network.state_dict().items()}
    assert all(step == 0 for name, step in steps.items() if name.startswith(frozen))  # batch statistics too
    assert steps["features.denseblock2.denselayer1.norm1.running_mean"] > 0
    assert steps["features.denseblock2.denselayer1.conv1.weight"] == pytest.approx(0.25e-3, rel=0.02)
    assert steps["transfer.conv.weight"] == pytest.approx(1e-3, rel=0.02)
    assert run.optimizer.param_groups[1]["lr"] == pytest.approx(1e-3)


def test_one_cycle_keeps_the_share_of_the_backbone(tmp_path):
    run = trainer(tmp_path, one_cycle=True, epochs=4, backbone_rate=0.25)
    for _ in range(4):
        backbone, rest = (group["lr"] for group in run.optimizer.param_groups)
        assert backbone == pytest.approx(rest / 4)
        run.update(batch(run))


def test_accumulation_averages_the_parts(tmp_path):
    one, two = trainer(tmp_path), trainer(tmp_path, accumulate=2)
    one.network.eval()  # with fixed batch statistics, the parts see what the whole sees
    two.network.eval()
    losses = [float(run.update(batch(run))) for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    gradients = [run.network.transfer.conv.weight.grad for run in (one, two)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates_two_parts(folder, tmp_path):
    """With parts of two images each, so that batch statistics are the same; the loss counts over all four."""
    for name, accumulate in (("one", 2), ("two", 1)):
        text = RECIPE.replace("batch = 4", f'batch = 4\nloss = "w-cel"\naccumulate = {accumulate}')
        text = text.replace("learning_rate = 1e-3", "learning_rate = 1e-5")  # so that rounding does not grow
        (tmp_path / f"{name}.toml").write_text(text)
    assert "on 1 x cpu" in run_main(tmp_path / "one.toml", *options(folder, tmp_path / "one"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "train"]
    command = [*torchrun, tmp_path / "two.toml", *options(folder, tmp_path / "two")]
    both = subprocess.run(command, cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True, check=True)
    assert both.stderr.count("on 2 x cpu") == 1
    assert both.stderr.count("epoch 2: loss") == 1
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    torch.manual_seed(0)
    for name, before in Network(SETTINGS["paper"]).named_parameters():
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=4e-6)
        assert (one[name] - before.detach()).abs().max() > 1e-5
    facts, others = (training_facts(tmp_path / run / "last.safetensors") for run in ("one", "two"))
    assert others["loss"] == pytest.approx(facts["loss"], rel=1e-4)
    assert (facts["processes"], others["processes"]) == (1, 2)


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path):
    group = Group("cpu")
    group.size = 3
    with pytest.raises(UsageError, match="batch 16 cannot be divided into 1 x 3 equal parts"):
        trainer(tmp_path, group=group)


def test_the_rate_is_cut_after_five_epochs_without_a_better_loss(tmp_path):
    run = trainer(tmp_path, setting="chexnet")
    rates = []
    for loss in (1.0, 0.9, 0.9, 0.95, 0.9, 0.9, 0.91, 0.8):
        run.scheduler.step(loss)
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([4e-3] * 6 + [4e-4] * 2)


def test_one_cycle_ends_at_a_rate_of_nothing(tmp_path):
    run = trainer(tmp_path, setting="chexnet", one_cycle=True, epochs=5)
    rates = [run.optimizer.param_groups[0]["lr"]]
    for _ in range(5):
        run.update(batch(run))
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert max(rates) == pytest.approx(4e-3, rel=0.2)
    assert rates[-1] < 1e-6 < 1e-4 < rates[0] < 4e-4


def test_the_pooling_is_annealed_from_the_average_to_k_of_the_network(tmp_path):
    run = trainer(tmp_path, size=128, anneal=2, epochs=4)
    ks = []
    for run.epoch in range(4):
        run._anneal()
        ks.append((run.network.pool.k_max, run.network.pool.k_min))
    assert ks == [(16, 16), (4, 4), (1, 1), (1, 1)]
    assert run.averaged.module.pool.k_max == 1  # what is validated is the network itself


def test_the_first_scores_are_the_frequencies_of_the_findings(tmp_path):
    run = trainer(tmp_path, prior_bias=True)
    torch.nn.init.zeros_(run.network.transfer.conv.weight)
    frequency = run.images.labels[:16].mean(0).clip(1 / 32, 31 / 32)
    scores = torch.sigmoid(run.network.eval()(torch.zeros(1, 3, 32, 32))).detach().numpy()[0]
    np.testing.assert_allclose(scores, frequency, rtol=1e-5)


def test_the_average_of_the_weights_is_what_is_kept(tmp_path):
    run = trainer(tmp_path, average=0.75)
    name = "transfer.conv.weight"
    run.update(batch(run))
    first = run.network.get_parameter(name).detach().clone()
    run.update(batch(run))
    second = run.network.get_parameter(name).detach()
    run._write("last", {})
    torch.testing.assert_close(load_file(tmp_path / "last.safetensors")[name], 0.75 * first + 0.25 * second)


def test_auxiliary_targets_teach_the_backbone_and_unknown_ones_do_not():
    torch.manual_seed(0)
    head, features = AuxiliaryHead(8), torch.randn(2, 8, 2, 2, requires_grad=True)
    nan = float("nan")
    loss = head.loss(features, torch.tensor([[1.0, nan, 0.5], [nan, nan, nan]]))
    view, _, age = head.linear(features[0].mean((1, 2)))
    torch.testing.assert_close(loss, (torch.log1p(torch.exp(-view)) + (age - 0.5) ** 2) / 2)
    loss.backward()
    assert features.grad[0].abs().min() > 0
    assert not features.grad[1].any()
    assert float(head.loss(features, torch.full((2, 3), nan)).detach()) == 0


def test_only_a_better_validation_loss_replaces_the_best(tmp_path, monkeypatch):
    run = trainer(tmp_path, setting="chexnet", epochs=3)
    monkeypatch.setattr(run, "update", lambda batch: torch.tensor(1.0))
    losses = iter([0.7, 0.6, 0.65])
    monkeypatch.setattr(run.objective, "validate", lambda *_: (next(losses), None))
    run.run()
    assert training_facts(tmp_path / "best.safetensors")["epoch"] == 2
    assert training_facts(tmp_path / "last.safetensors")["val_loss"] == 0.65
    assert not list(tmp_path.glob(".*"))


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_no_weights(tmp_path, monkeypatch):
    run = trainer(tmp_path, setting="chexnet")
    monkeypatch.setattr(run, "update", lambda batch: torch.tensor(float("nan")))
    with pytest.raises(UsageError, match="the loss of epoch 1 is not finite"):
        run.run()
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_run_starts_from_the_weights_of_another(folder, tmp_path):
    torch.manual_seed(7)
    network = Network(SETTINGS["paper"])
    save_checkpoint(network, tmp_path / "first.safetensors", weights="trained")
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("learning_rate = 1e-3", "learning_rate = 1e-12"))
    run_main(tmp_path / "tiny.toml", *options(folder, tmp_path / "run"), "--start", str(tmp_path / "first.safetensors"))
    found = load_file(tmp_path / "run" / "last.safetensors")["features.conv0.weight"]
    torch.testing.assert_close(found, network.features.conv0.weight.detach(), rtol=0, atol=1e-6)


def test_a_second_run_in_the_same_folder_is_refused(folder, tmp_path):
    with locked(tmp_path / "lock"):
        second = CliRunner().invoke(main, [str(folder / "tiny.toml"), *options(folder, tmp_path)])
    assert second.exit_code == 2
    assert f"error: {tmp_path}: another process is writing there" in second.stderr
    assert not (tmp_path / "state.pt").exists()


def test_a_damaged_state_is_refused(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match=r"state\.pt: is damaged"):
        trainer(tmp_path, setting="chexnet")


def test_mistakes_end_with_one_sentence_and_exit_code_2(folder, tmp_path):
    recipes = "agcnn-densenet121, agcnn-resnet50, chexnet, chexnet-2017, demo-1, demo-2, demo-3, demo-dense"
    for recipe, sentence in (
        ("none", f"none: no such recipe; name a .toml file or one of {recipes}"),
        ("paper", "none.csv: no such label file"),
    ):
        inputs = ["--labels", tmp_path / "none.csv", "--images", folder, "--out", tmp_path, "--device", "cpu"]
        result = CliRunner().invoke(main, [recipe, *map(str, inputs)])
        assert result.exit_code == 2
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
