"""From scores to calibrated probabilities and a yes or no per finding: fitting, and storing the fit in a bundle."""
