"""The text of raw logs as rows.

    parser.Parser(layout).parts(block, first_line=1)   # rows, and the lines that are none
    rows.Rows                                          # labels, dense values and ids as arrays

`lines` splits a block into fields.
"""
