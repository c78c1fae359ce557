"""Numbers of things in words."""


def quantity(count: int, noun: str) -> str:
    """A number with its noun: "1 file", "12 files", "2 boxes"."""
    plural = "es" if noun.endswith("x") else "s"
    return f"{count} {noun}{plural if count != 1 else ''}"


def disk_size(count: float) -> str:
    """A number of bytes in decimal units: "0.4 MB", "23 MB", "1.9 GB"."""
    megabytes = count / 1e6
    if megabytes >= 1000:
        return f"{megabytes / 1000:.1f} GB"
    return f"{megabytes:.0f} MB" if megabytes >= 10 else f"{megabytes:.1f} MB"
