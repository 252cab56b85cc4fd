"""Submissions, which are folders with the results of a comparison. Another person can verify a submission without the
corpus and the checkpoints.

A submission is a runs folder that contains only records: specs, events, growth records, environments, results, the arms
and the comparison. Final checkpoints can be added. `tfscale.results` reads a submission like any other runs
folder. The file submission.json lists all other files:

    {"format": 1, "tfscale": version, "command": ..., "checkpoints": true or false, "files": {path: SHA-256}}
"""
