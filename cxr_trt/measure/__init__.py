"""How fast an engine is, on the machine at hand."""
