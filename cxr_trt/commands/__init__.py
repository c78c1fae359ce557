"""The commands, one module each, and what they share: sources, progress, signals, tables on the terminal."""
