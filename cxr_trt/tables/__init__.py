"""The table of scores and the table of labels: rows, writing, reading."""
