"""Scores chest X-rays for the 14 findings of ChestX-ray14. Research use only; not a medical device."""

import os
import sys

# ONNX Runtime tells Microsoft, and OpenVINO tells Google Analytics, what is run here, unasked. Both look at these when
# they are imported, which is after this.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
