"""What `import cxr_trt` gives: scores by finding, a data frame, and preprocessing by the engine."""

import numpy as np
import pytest

import cxr_trt
from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS


@pytest.fixture
def xrays(radiographs, tmp_path):
    (tmp_path / "a.dcm").write_bytes((radiographs / "RG1_UNCR.dcm").read_bytes())
    (tmp_path / "b.png").write_bytes(b"")
    return tmp_path


def test_probabilities_are_found_by_finding(cheap_bundle, xrays):
    with cxr_trt.Engine(cheap_bundle) as engine:
        one, other = engine.score(xrays)
    assert tuple(one.probabilities) == FINDINGS
    assert one.probabilities["Hernia"] > one.probabilities["Atelectasis"]
    assert (other.probabilities, other.path) == (None, "b.png")
    assert other.error


def test_a_data_frame_has_the_columns_of_the_table(cheap_bundle, xrays):
    pytest.importorskip("pandas", reason="needs pip install pandas")
    with cxr_trt.Engine(cheap_bundle) as engine:
        frame = engine.score(xrays).to_pandas()
        (one, _) = engine.score(xrays)
    assert list(frame["path"]) == ["a.dcm", "b.png"]
    assert frame["Hernia"][0] == pytest.approx(one.probabilities["Hernia"])
    assert np.isnan(frame["Hernia"][1])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_the_engine_preprocesses_as_for_a_file(cheap_bundle, dtype):
    grey = np.tile(np.arange(250), (300, 1)).astype(dtype)
    with cxr_trt.Engine(cheap_bundle) as engine:
        image = engine.preprocess(grey)
        np.testing.assert_array_equal(image[0], cxr_trt.preprocess(grey.astype(np.float32), engine.spec.image_size))
        assert engine.run(image).probabilities.shape == (1, 14)
        for wrong in (grey[None], grey[:0], np.full((4, 4), np.nan)):
            with pytest.raises(UsageError):
                engine.preprocess(wrong)
