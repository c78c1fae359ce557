"""AUC of the engines of each precision against PyTorch, on the shipped model's centre crop."""

import numpy as np
import pytest

from cxr_trt.score.engine import Engine
from cxr_trt.evaluate.auc import evaluate
from cxr_trt.tables.reading import read_labels
from cxr_trt.images.load import load_images
from cxr_trt.spec import Specification

FEW = 60
ALLOWED = {"fp32": 1e-9, "fp16": 0.004, "int8": 0.02}
"""Of the mean AUC. On so few images a single exchange of two neighbours moves a finding by up to 0.001."""


@pytest.fixture(scope="module")
def engines(center_bundle, fp16, int8):
    return {"fp32": center_bundle, "fp16": fp16, "int8": int8}


@pytest.fixture(scope="module")
def reference(network):
    """The probabilities [N, 14] of images, by PyTorch."""
    import torch

    from cxr_trt.model.scorer import Scorer

    scorer = Scorer(network, Specification(views="center"))
    return lambda images: np.concatenate([scorer(torch.from_numpy(image[None]))[0].numpy() for image in images])


def mean_auc(probabilities, labels):
    return evaluate(probabilities.astype(np.float64), labels, np.arange(len(labels)), resamples=0).mean_auc


def check(engines, images, expected, labels):
    exact = mean_auc(expected, labels)
    found = {}
    for precision, bundle in engines.items():
        with Engine(bundle) as engine:
            found[precision] = mean_auc(engine.run(images).probabilities, labels)
    assert found == {precision: pytest.approx(exact, abs=ALLOWED[precision]) for precision in engines}
    assert mean_auc(np.roll(expected, 1, 0), labels) != pytest.approx(exact, abs=ALLOWED["int8"])


def test_the_order_of_the_images_is_pytorchs(engines, reference, chests):
    """Without labels: those images are positive that PyTorch scores above the median, so its own AUC is 1."""
    images = load_images(sorted(chests.iterdir()), 512)
    expected = reference(images)
    check(engines, images, expected, expected > np.median(expected, 0))


def test_auc_on_real_labels_is_pytorchs(engines, reference, cxr14):
    truth = read_labels(cxr14 / "labels.csv")
    rows = np.random.default_rng(0).permutation(len(truth.images))[:FEW]
    images = load_images([cxr14 / "images" / truth.images[row] for row in rows], 512)
    check(engines, images, reference(images), truth.values[rows])
