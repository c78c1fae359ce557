"""The table of scores, written and read, and the table of labels."""
