"""`python -m sizewise.cli`, the same as `sizewise`."""

from sizewise.cli import main

main()
