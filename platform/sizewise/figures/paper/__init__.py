"""The report, and figures for paper and print."""
