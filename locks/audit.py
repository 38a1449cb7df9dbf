"""Asks the advisory service of the package index whether a pinned package has a known vulnerability.

Without a network nothing can be known: that is said in one line and is no failure, so that the check can
stand in a routine that also runs offline.

    python locks/audit.py [locks/dev.txt]
"""

import json
import subprocess
import sys
from pathlib import Path

SECONDS = 120


def main() -> int:
    """0: nothing known, or nobody to ask; 1: known vulnerabilities, a line each."""
    lock = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("dev.txt")
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        str(lock),
        "--disable-pip",
        "--format",
        "json",
    ]
    try:
        done = subprocess.run(
            [*command, "--progress-spinner", "off", "--timeout", "10"],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        found = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print(f"audit: NOT CHECKED: the advisory service could not be asked about {lock}; try again online")
        return 0
    lines, status = verdict(found, lock.name)
    print("\n".join(f"audit: {line}" for line in lines))
    return status


def verdict(found: list[dict], name: str) -> tuple[list[str], int]:
    """Lines and exit code for pip-audit's entries; a package that nobody knew of was not checked."""
    asked = [entry for entry in found if "skip_reason" not in entry]
    if not asked:
        return [f"NOT CHECKED: the service knew none of the {len(found)} packages of {name}"], 0
    lines = []
    for entry in asked:
        for flaw in entry.get("vulns", ()):
            fixed = ", ".join(flaw["fix_versions"]) or "none yet"
            lines.append(f"{entry['name']} {entry['version']}: {flaw['id']}; fixed in: {fixed}")
    bad = len(lines)
    lines.append(
        f"{len(asked)} packages of {name} checked, {len(found) - len(asked)} not: {bad} known vulnerabilities"
    )
    return lines, 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
