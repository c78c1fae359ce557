"""The weighted cross-entropy of Wang et al. 2017 against its equation, and where a batch is computed in parts."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

from train.losses import class_weights, cross_entropy  # noqa: E402


def w_cel(probabilities, labels):
    """Eq. 1, entry by entry."""
    entries = [
        (f, y) for row, truth in zip(probabilities, labels, strict=True) for f, y in zip(row, truth, strict=True)
    ]
    ones = sum(y for _, y in entries)
    zeros = len(entries) - ones
    total = 0.0
    for f, y in entries:
        if y == 1:
            total += (ones + zeros) / ones * -math.log(f)
        else:
            total += (ones + zeros) / zeros * -math.log(1 - f)
    return total


RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 4, (6, 14))
LABELS = {
    "some of each": (RNG.random((6, 14)) < 0.1).astype(float),
    "no ones": np.zeros((6, 14)),
    "no zeros": np.ones((6, 14)),
    "a single one": np.eye(6, 14) * (np.arange(6) == 2)[:, None],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_the_weighted_loss_is_equation_1_divided_by_the_entries(labels):
    logits, truth = torch.from_numpy(LOGITS).requires_grad_(), torch.from_numpy(labels)
    loss = cross_entropy(logits, truth, class_weights(truth.sum(), torch.tensor(truth.numel())))
    assert float(loss.detach()) == pytest.approx(w_cel(1 / (1 + np.exp(-LOGITS)), labels) / labels.size, rel=1e-12)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().min() > 0


def test_logits_far_out_do_not_overflow():
    logits, labels = torch.tensor([[1e4, -1e4, 1e4]]), torch.tensor([[0.0, 1.0, 1.0]])
    assert float(cross_entropy(logits, labels, class_weights(labels.sum(), torch.tensor(3)))) == pytest.approx(
        (3e4 + 1.5e4) / 3
    )


def test_equal_parts_with_the_weights_of_the_whole_average_to_its_loss():
    logits, labels = torch.from_numpy(LOGITS), torch.from_numpy(LABELS["some of each"])
    weights = class_weights(labels.sum(), torch.tensor(labels.numel()))
    parts = [cross_entropy(*part, weights) for part in zip(logits.chunk(3), labels.chunk(3), strict=True)]
    torch.testing.assert_close(torch.stack(parts).mean(), cross_entropy(logits, labels, weights))


def test_without_weights_it_is_the_mean_of_cross_entropies():
    labels = LABELS["some of each"]
    p = 1 / (1 + np.exp(-LOGITS))
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    assert float(cross_entropy(torch.from_numpy(LOGITS), torch.from_numpy(labels), None)) == pytest.approx(expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_unknown_labels_change_neither_loss_nor_gradient(weighted):
    labels = LABELS["some of each"].copy()
    known = RNG.random(labels.shape) < 0.6
    weights = class_weights(torch.tensor(labels[known].sum()), torch.tensor(known.sum())) if weighted else None
    values = []
    for unknown in (0.0, 30.0):
        logits = torch.from_numpy(np.where(known, LOGITS, unknown)).requires_grad_()
        loss = cross_entropy(logits, torch.from_numpy(np.where(known, labels, np.nan)), weights)
        loss.backward()
        values.append((float(loss.detach()), logits.grad))
        assert (logits.grad.numpy() != 0).tolist() == known.tolist()
    assert values[0][0] == values[1][0]
    assert torch.equal(values[0][1], values[1][1])
    p, y = 1 / (1 + np.exp(-LOGITS[known])), labels[known]
    plain = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    expected = w_cel(p[None], y[None]) / known.sum() if weighted else plain
    assert values[0][0] == pytest.approx(expected)


def test_a_batch_of_unknown_labels_has_no_loss():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 3), torch.nan), None)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_weights_per_finding_are_those_of_its_own_frequency():
    labels = torch.tensor([[1.0, 0], [0, 0], [0, 1], [0, 1]])
    weights = class_weights(labels.sum(0), torch.tensor([4, 4]))
    logits = torch.randn(4, 2).double()
    entropy = torch.nn.functional.softplus(torch.where(labels > 0, -logits, logits))
    expected = (entropy * torch.tensor([[4, 2], [4 / 3, 2], [4 / 3, 2], [4 / 3, 2]])).mean()
    assert float(cross_entropy(logits, labels, weights)) == pytest.approx(float(expected))
