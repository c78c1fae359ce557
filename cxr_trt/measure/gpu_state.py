"""Clocks, power and temperature of a GPU while something is timed: without them, timings cannot be compared.

NVML reports them for a GPU on a card. On a Jetson, Linux reports them in files: the GPU's clock in devfreq, and the
power of each rail from INA3221 sensors (Documentation/hwmon/ina3221.rst of the Linux kernel).
"""

import statistics
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cxr_trt.measure.sampling import Sampling

SYSTEM_FOLDER = Path("/sys")
SAMPLING_SECONDS = 0.05  # between two readings
JETSON_GPUS = ("gpu", "ga10b", "gv11b")  # parts of device names in devfreq: Thor and Orin, Orin, Xavier
CODECS = "nvd"  # Thor's gpu-nvd-0, beside gpu-gpc-0, which computes
SENSOR_ERRORS = (OSError, ValueError)  # a sensor that is off or busy

Reading = dict[str, float]


class GpuState:
    """Reads the state of a GPU repeatedly inside `with state.watched():`; call `median()` afterwards.

    Values that cannot be read are left out. With neither NVML nor a Jetson's files, there are none at all.
    """

    def __init__(self, pci_bus_id: str) -> None:
        self._card = nvml(pci_bus_id)
        self._readings: list[Reading] = []

    def watched(self) -> Sampling:
        return Sampling(lambda: self._readings.append(self._read()), SAMPLING_SECONDS)

    def _read(self) -> Reading:
        """From NVML; from the Jetson's files where it does not know the GPU, or knows it and tells nothing."""
        return (self._card and self._card()) or jetson(SYSTEM_FOLDER)

    def median(self) -> Reading:
        """The median of each value, by its name with its unit."""
        names = dict.fromkeys(name for reading in self._readings for name in reading)
        return {
            name: statistics.median(reading[name] for reading in self._readings if name in reading) for name in names
        }


def nvml(pci_bus_id: str) -> Callable[[], Reading] | None:
    """A function that reads the state of a GPU on a card, or None if NVML does not know the GPU.

    Args:
        pci_bus_id: the GPU's address, such as 0000:65:00.0.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id.encode())
    except pynvml.NVMLError:
        return None
    queries: dict[str, Callable[[], float]] = {
        "sm_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM),
        "memory_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_MEM),
        "watts": lambda: pynvml.nvmlDeviceGetPowerUsage(card) / 1000,
        "celsius": lambda: pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU),
    }

    def read() -> Reading:
        reading: Reading = {}
        for name, query in queries.items():
            with suppress(pynvml.NVMLError):  # not every card reports every value
                reading[name] = float(query())
        return reading

    return read


def jetson(system: Path) -> Reading:
    """The state of a Jetson whose `/sys` is `system`: the GPU's clock, and watts per rail, named as on the board."""
    reading: Reading = {}
    for device in sorted(system.glob("class/devfreq/*")):
        if any(name in device.name for name in JETSON_GPUS) and CODECS not in device.name:
            with suppress(*SENSOR_ERRORS):
                reading["gpu_clock_mhz"] = _number(device / "cur_freq") / 1e6
    for sensor in sorted(system.glob("class/hwmon/hwmon*")):
        if _text(sensor / "name") != "ina3221":
            continue
        for channel in (1, 2, 3):
            label = _text(sensor / f"in{channel}_label")
            if label and label != "NC":  # not connected
                with suppress(*SENSOR_ERRORS):
                    reading[f"{label}_watts"] = _watts(sensor, channel)
    return reading


def _watts(sensor: Path, channel: int) -> float:
    millivolts, milliamperes = _number(sensor / f"in{channel}_input"), _number(sensor / f"curr{channel}_input")
    return millivolts * milliamperes / 1e6


def _number(path: Path) -> float:
    return float(path.read_text(encoding="ascii"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except SENSOR_ERRORS:
        return ""
