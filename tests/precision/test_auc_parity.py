"""AUC of the engines of each precision against PyTorch, on the shipped model's centre crop."""

import numpy as np
import pytest

from cxr_trt.evaluate.auc import evaluate
from cxr_trt.findings import FINDINGS
from cxr_trt.images.load import load_images
from cxr_trt.score.engine import Engine
from cxr_trt.tables.labels import read_labels

MAX_IMAGES = 40
MAX_AUC_DIFFERENCES = {"fp32": 1e-9, "fp16": 0.004, "int8": 0.02}
"""Of the mean AUC. On so few images a single exchange of two neighbours moves a finding by up to 0.001."""


@pytest.fixture(
    scope="module", params=[(288, 224), pytest.param((512, 448), marks=(pytest.mark.slow, pytest.mark.long))], ids=str
)
def engines(bundles_of_size, request):
    opened = {precision: Engine(bundle) for precision, bundle in bundles_of_size(*request.param).items()}
    yield opened
    for engine in opened.values():
        engine.close()


@pytest.fixture(scope="module")
def reference(network, engines):
    """The probabilities [N, 14] of images, by PyTorch."""
    import torch

    from cxr_trt.model.scorer import Scorer

    scorer = Scorer(network, engines["fp32"].spec)
    return lambda images: np.concatenate([scorer(torch.from_numpy(image[None]))[0].numpy() for image in images])


def mean_auc(probabilities, labels):
    return evaluate(FINDINGS, probabilities.astype(np.float64), labels, np.arange(len(labels)), resamples=0).mean_auc


def check(engines, images, expected, labels):
    exact = mean_auc(expected, labels)
    found = {precision: mean_auc(engine.run(images).probabilities, labels) for precision, engine in engines.items()}
    assert found == {precision: pytest.approx(exact, abs=MAX_AUC_DIFFERENCES[precision]) for precision in engines}
    assert mean_auc(np.roll(expected, 1, 0), labels) != pytest.approx(exact, abs=MAX_AUC_DIFFERENCES["int8"])


def test_the_order_of_the_images_is_pytorchs(engines, reference, chests):
    """Without labels: those images are positive that PyTorch scores above the median, so its own AUC is 1."""
    images = load_images(sorted(chests.iterdir()), engines["fp32"].spec.image_size)
    expected = reference(images)
    check(engines, images, expected, expected > np.median(expected, 0))


def test_auc_on_real_labels_is_pytorchs(engines, reference, cxr14):
    truth = read_labels(cxr14 / "labels.csv", FINDINGS)
    rows = np.random.default_rng(0).permutation(len(truth.images))[:MAX_IMAGES]
    files = [cxr14 / "images" / truth.images[row] for row in rows]
    images = load_images(files, engines["fp32"].spec.image_size)
    check(engines, images, reference(images), truth.values[rows])
