import json
from dataclasses import replace

import pytest

from cxr_trt.errors import GraphError
from cxr_trt.findings import FINDINGS, finding_file_name, same_findings, why_not_findings
from cxr_trt.spec import Specification


@pytest.mark.parametrize(
    "names",
    [
        FINDINGS,
        ["Effusion"],
        ["Épanchement pleural", "肺炎", "Lung / pleura", "100% opacity"],
        [f"F{i}" for i in range(512)],
    ],
)
def test_any_findings_are_allowed(names):
    assert why_not_findings(names) is None
    spec = replace(Specification(), findings=tuple(names))
    assert Specification.from_mapping(json.loads(spec.to_json())) == spec


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("Mass", "the findings are no list of names"),
        (["Mass", 5], "the findings are no list of names"),
        ([], "there are 0 findings, and a network has 1 to 512"),
        ([f"F{i}" for i in range(513)], "there are 513 findings"),
        (["Mass", ""], "the finding '' has no name"),
        (["Mass", " \t"], "has no name"),
        (["Mass "], "begins or ends with a blank"),
        (["M" * 65], "has 65 characters, and a name has at most 64"),
        (["Ma\nss"], "has a character that cannot be printed"),
        (["Ma\\ss"], "has a backslash, which divides values in DICOM"),
        (["Mass", "Edema", "Mass"], "the findings 'Mass' and 'Mass' have the same name"),
        (
            ["Pleural Thickening", "pleural_thickening"],
            "'Pleural Thickening' and 'pleural_thickening' have the same name",
        ),
        (["Ede\u0301ma", "Edéma"], "have the same name"),
        (["Engine"], "the finding 'Engine' has the name of another column of the tables"),
        (["Mass_calibrated"], "has the name of another column of the tables"),
        (["Mass_Positive"], "has the name of another column of the tables"),
    ],
)
def test_what_is_wrong_with_findings_is_said(names, reason):
    assert reason in why_not_findings(names)
    with pytest.raises(GraphError, match="its specification cannot be used"):
        Specification.from_mapping({**Specification().to_mapping(), "findings": names})


def test_findings_are_the_same_whatever_their_case_spaces_and_underscores():
    offered = ["pleural thickening", "MASS", "Mass", "Edema"]
    assert same_findings(["Mass", "Pleural_Thickening", "Hernia"], offered) == {
        "Mass": "Mass",
        "Pleural_Thickening": "pleural thickening",
    }


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, name) for name in FINDINGS),
        ("Lung Opacity", "Lung_Opacity"),
        ("Air/fluid (any) ", "Air_fluid_any"),
        ("../../etc", "etc"),
        ("Épanchement", "Épanchement"),
        ("???", "finding"),
    ],
)
def test_file_names_hold_no_slash_and_no_dot(name, part):
    assert finding_file_name(name) == part
