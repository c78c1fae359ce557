"""The HTML report of a table of scores."""
