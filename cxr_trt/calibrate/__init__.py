"""From scores to calibrated probabilities and a yes or no a finding: fitting, and keeping the fit in a bundle."""
