"""The text of raw logs as rows.

    parser.Parser(layout).parts(block, first_line=1)   # rows, and the lines that are none
    rows.Rows                                          # labels, dense values and ids as arrays
    time_order.find_time(layout, lines)                # the column that holds the time, if any

`lines` splits a block into fields, `hashing` turns other tokens than Criteo's into 32 bits.
"""
