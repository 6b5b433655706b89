"""Text out of a file as it may be printed: what would steer a terminal becomes readable instead."""


def printable(text: str) -> str:
    """Text without what steers a terminal: an escape becomes readable, as `\\\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """The same for text of several lines, such as a traceback."""
    return "\n".join(printable(line.expandtabs()) for line in text.split("\n"))
