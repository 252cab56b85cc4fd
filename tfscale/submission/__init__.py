"""Submissions, which are folders with the results of a comparison that another person can verify without the
checkpoints and the corpus.

A submission is a runs folder that contains only records: specs, events, growth records, environments, results, the arms
and the comparison. Final checkpoints can be added. `tfscale.results` reads it like any other runs folder.
submission.json lists all files:

    {"format": 1, "tfscale": version, "command": ..., "checkpoints": true or false, "files": {path: SHA-256}}
"""
