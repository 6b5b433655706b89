"""What a study is on disk: `study_folder.StudyFolder` has every path, `records` what is in the files.

`trials` writes and reads the ledger and the curves, `driving` says who drives the study and what its trials use.
"""
