"""How good scores are: areas under curves with intervals, from a table of scores and a table of labels."""
