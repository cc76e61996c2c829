"""What is measured: one file for each subject; `contract.py` says what such a file holds."""
