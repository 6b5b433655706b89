"""What a study is on disk: ledger, curves, usage."""
