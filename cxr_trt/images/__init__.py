"""Image files to display grey."""
