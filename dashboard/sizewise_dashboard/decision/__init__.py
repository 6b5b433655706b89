"""The parts of the page to decide on."""
