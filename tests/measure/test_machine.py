"""What a committed result says of the machine that it was measured on."""

import pytest

from cxr_trt.measure.machine import describe_machine, instruction_sets

try:
    from numpy._core._multiarray_umath import __cpu_features__ as cpu_features
except ImportError:
    from numpy.core._multiarray_umath import __cpu_features__ as cpu_features


@pytest.mark.parametrize(("name", "numpys"), [("AVX2", "AVX2"), ("AVX-512", "AVX512F"), ("SVE", "SVE")])
def test_instruction_sets_are_those_that_numpy_finds(name, numpys):
    assert (name in instruction_sets().split(", ")) == cpu_features.get(numpys, False)


def test_a_limit_of_onednn_is_named(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    unlimited = describe_machine()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert describe_machine() == f"{unlimited}, oneDNN limited to AVX2"
