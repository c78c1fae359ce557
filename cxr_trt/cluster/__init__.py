"""Scoring a list of files in shards, each of which is one part of the table, whichever machine scores it."""
