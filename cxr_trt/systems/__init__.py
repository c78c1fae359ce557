"""The systems: published networks for chest X-rays, each in a module of its own."""

from cxr_trt.errors import UsageError
from cxr_trt.systems.chexnet2017 import CHEXNET2017
from cxr_trt.systems.edge import EDGE
from cxr_trt.systems.guan2018 import GUAN2018
from cxr_trt.systems.guendel2018 import GUENDEL2018
from cxr_trt.systems.li2018 import LI2018
from cxr_trt.systems.rubin2018 import RUBIN2018
from cxr_trt.systems.system import System
from cxr_trt.systems.wang2017 import WANG2017
from cxr_trt.systems.yan2018 import YAN2018
from cxr_trt.systems.yao2017 import YAO2017
from cxr_trt.systems.yao2018 import YAO2018

SYSTEMS = (YAN2018, WANG2017, YAO2017, CHEXNET2017, LI2018, GUAN2018, YAO2018, GUENDEL2018, RUBIN2018, EDGE)


def setting_names() -> list[str]:
    """The settings of all systems."""
    return [setting for system in SYSTEMS for setting in system.settings]


def find_system(setting: str) -> System:
    """The system that has a setting of this name.

    Raises:
        UsageError: none has.
    """
    for system in SYSTEMS:
        if setting in system.settings:
            return system
    raise UsageError(f"setting {setting!r} is none of {', '.join(setting_names())}")
