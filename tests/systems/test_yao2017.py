"""Yao et al. 2017: the decoder against its equations in NumPy, and against a sum over all sequences of labels."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")

from cxr_trt.findings import FINDINGS  # noqa: E402
from cxr_trt.model.label_chain import LabelChain, LabelDecoder  # noqa: E402
from cxr_trt.systems import find_system  # noqa: E402
from cxr_trt.systems.yao2017 import BY_FREQUENCY, ORDERS  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
X = np.random.default_rng(0).normal(0, 1, (3, 8))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def decoder(steps=6, marginals="exact"):
    torch.manual_seed(2)
    made = LabelDecoder(8, steps, marginals, state=5)
    with torch.no_grad():
        for weights in made.parameters():
            weights.normal_(0, 0.8)
    return made


class Equations:
    """Eqs. 5 to 12 in float64, for one vector x [D]."""

    def __init__(self, made, x):
        self.w = {name: value.detach().double().numpy() for name, value in made.named_parameters()}
        self.x = x
        self.h, self.c = (self.net(name) for name in ("hidden", "cell"))

    def net(self, name):
        inner = np.tanh(self.w[f"{name}.0.weight"] @ self.x + self.w[f"{name}.0.bias"])
        return self.w[f"{name}.2.weight"] @ inner + self.w[f"{name}.2.bias"]

    def step(self, h, c, previous):
        w = self.w
        gates = w["input.weight"] @ self.x + w["recurrent.weight"] @ h + w["label"] * previous + w["input.bias"]
        i, o, f, g = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return h, c, sigmoid(w["prediction.weight"] @ h + w["prediction.bias"])[0]


def along(equations, labels):
    """The probability of each step where the labels before it are known."""
    h, c, previous, found = equations.h, equations.c, 0, []
    for label in labels:
        h, c, m = equations.step(h, c, previous)
        found.append(m)
        previous = label
    return np.array(found)


def test_training_sees_the_true_label_before():
    made, labels = decoder(), np.random.default_rng(1).integers(0, 2, (3, 6))
    found = torch.sigmoid(made.logits_given(torch.from_numpy(X).float(), torch.from_numpy(labels)))
    expected = [along(Equations(made, x), row) for x, row in zip(X, labels, strict=True)]
    np.testing.assert_allclose(found.detach(), expected, atol=1e-6)
    assert np.ptp(expected, axis=0).min() > 0.01


def test_exact_marginals_are_the_sum_over_all_sequences():
    made = decoder()
    found = torch.sigmoid(made(torch.from_numpy(X).float())).detach()
    for x, row in zip(X, found, strict=True):
        marginals, total = np.zeros(6), 0.0
        for labels in itertools.product((0, 1), repeat=6):
            p = along(Equations(made, x), labels)
            weight = np.where(labels, p, 1 - p).prod()
            total += weight
            marginals += weight * np.array(labels)
        assert total == pytest.approx(1)
        np.testing.assert_allclose(row, marginals, atol=1e-6)


def test_greedy_marginals_follow_a_threshold_of_one_half():
    found = torch.sigmoid(decoder(marginals="greedy")(torch.from_numpy(X).float())).detach()
    exact = torch.sigmoid(decoder()(torch.from_numpy(X).float())).detach()
    for x, row in zip(X, found, strict=True):
        equations = Equations(decoder(), x)
        h, c, previous = equations.h, equations.c, 0
        for p in row:
            h, c, m = equations.step(h, c, previous)
            assert float(p) == pytest.approx(m, abs=1e-6)
            previous = m > 0.5
    assert (found - exact).abs().max() > 0.01


def test_outputs_are_in_the_order_of_the_findings_whatever_the_decoders():
    torch.manual_seed(0)
    network = LabelChain(2, FINDINGS, "exact").eval()
    crops, labels = torch.randn(2, 1, 128, 128), torch.randint(0, 2, (2, 14)).float()
    other = LabelChain(2, BY_FREQUENCY, "exact").eval()
    other.load_state_dict(network.state_dict())
    with torch.inference_mode():
        places = [FINDINGS.index(finding) for finding in BY_FREQUENCY]
        np.testing.assert_array_equal(other(crops)[:, places], network(crops))
        ordered = labels[:, places]
        found, known = other.training_outputs(crops, labels)
        assert torch.equal(known, labels)
        np.testing.assert_array_equal(found[:, places], network.training_outputs(crops, ordered)[0])
    assert all(sorted(order) == sorted(FINDINGS) for order in ORDERS.values())


def test_models_b_have_the_parameters_of_the_paper_but_for_3_percent():
    """1,016,000 are printed. Averages of 4 x 4 cells and a hidden layer of 100 are interpretations."""
    network = find_system("yao2017-b1").build("yao2017-b1")
    assert sum(weights.numel() for weights in network.parameters()) == pytest.approx(1_016_000, rel=0.03)
