"""The commands, a module each, and what they share: options, sources, progress, signals, tables on the terminal."""
