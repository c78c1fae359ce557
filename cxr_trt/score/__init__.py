"""From image files to rows."""
