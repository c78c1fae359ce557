"""The mixtures between ten crops and dense views are what they are called."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")

from benchmarks.dense_gap import difference, fixed_gates, mixtures, recorded_gates  # noqa: E402
from cxr_trt.export.pictures import check_pictures  # noqa: E402
from cxr_trt.model.scorer import Scorer  # noqa: E402
from cxr_trt.spec import Specification  # noqa: E402
from cxr_trt.views import Size  # noqa: E402

SIZES = {"image_size": Size.square(160), "crop_size": Size.square(96)}


@pytest.mark.slow
def test_the_ends_are_ten_crops_and_dense(network):
    picture = check_pictures(SIZES["image_size"])[:1]
    found = mixtures(network, Specification(**SIZES), picture[0])
    for own, view_set in ((found[0], "ten-crop"), (found[3], "dense")):
        expected, _ = Scorer(network, Specification(views=view_set, **SIZES))(torch.from_numpy(picture))
        np.testing.assert_allclose(own, expected[0], atol=1e-6)
    for i in range(3):
        assert np.abs(found[i] - found[i + 1]).max() > 1e-5  # each mixture is another


def test_gates_of_the_same_picture_change_nothing_and_others_do(network):
    one, other = torch.randn(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        with recorded_gates(network) as gates:
            maps = network.class_maps(one)
        assert [gate.shape[1] for gate in gates] == [128, 256, 512]
        with fixed_gates(network, gates):
            torch.testing.assert_close(network.class_maps(one), maps)
            with_others = network.class_maps(other)
        assert not torch.allclose(network.class_maps(other), with_others)


def test_a_difference_is_in_parts_of_the_spread():
    log_odds = np.random.default_rng(0).normal(size=(50, 14))
    exact, moved = (1 / (1 + np.exp(-values)) for values in (log_odds, log_odds + 0.1 * log_odds.std(0)))
    names = [str(i) for i in range(50)]
    assert difference(exact, moved, names)["moved"] == pytest.approx(0.1)
    assert difference(exact, exact, names) == {"moved": 0, "rank_correlation": pytest.approx(1)}
