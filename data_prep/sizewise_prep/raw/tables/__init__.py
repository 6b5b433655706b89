"""Raw logs whose columns have names: one file for each format, and what they share.

parquet.ParquetRows, csv.CsvRows, json_lines.JsonRows, arrow_ipc.ArrowRows    # see `row_readers.RowReader`
arrow_types.check(raw, schema, layout, True)    # whether a file has the layout's columns, of their kinds
"""
