"""Training and the making of shipped models; not part of the installed package."""
