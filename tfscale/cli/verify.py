"""The command `tfscale verify`, which verifies a submission. A submission is a folder with the results of a comparison,
usually from another person."""

from pathlib import Path

from tfscale.cli.common import Common
from tfscale.cli.console import answer, console, say
from tfscale.faults import Fault, UserFault
from tfscale.submission.verify import verify_submission
from tfscale.submission.write import SUBMISSION_FILE


def verify(common: Common, folder: Path) -> int:
    """Print the problems in a submission, and return the exit code, which is 1 if there are problems."""
    if not (folder / SUBMISSION_FILE).is_file():
        rule = f"must be a folder with a {SUBMISSION_FILE}"
        raise UserFault([Fault("DIR", folder, rule, "a folder that `tfscale compare --submit DIR` wrote")])
    with console.status("verifying files"):
        findings = verify_submission(folder)
    if common.as_json:
        answer({"sound": not findings, "findings": findings})
    elif findings:
        say(*findings, f"problems found in {folder}: {len(findings)}")
    else:
        say(f"no problems found in {folder}: the files are unchanged, and the comparison follows from the records")
    return 1 if findings else 0
