"""Text from a file made safe to print: control sequences of terminals become readable characters."""


def printable(text: str) -> str:
    """Text without control characters: an escape character becomes `\\\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """The same for text of several lines, such as a traceback."""
    return "\n".join(printable(line.expandtabs()) for line in text.split("\n"))
