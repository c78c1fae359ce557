"""How good scores are: areas under curves, calibration and localization, with intervals over patients."""
