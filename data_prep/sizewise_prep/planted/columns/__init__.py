"""What columns of a planted log hold and how they move a click: `ranks` the tokens of Criteo's layout, the other
modules what dials add to it (`added`).
"""
