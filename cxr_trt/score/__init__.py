"""From image files to rows of scores."""
