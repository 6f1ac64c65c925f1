"""The lock: every package of the environments at one version, those that others bring included. `make lock`.

pip resolves, without installing, what environment.yml and bench/requirements.txt list, for each Python of
PYTHONS that is here; each takes the versions found before it, so that one list serves all. The list,
requirements.lock, is one of constraints: pip installs of it what the platform needs.
"""
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

PYTHONS = ("3.11", "3.12", "3.13")
HELPERS = Path(__file__).resolve().parent
LOCK = HELPERS / "requirements.lock"
REQUIREMENT = re.compile(r"^ *- (-e [^ ]+|[a-z0-9_-]+==[^ ]+)", re.M)


def requirements():
    """Return what environment.yml lists for pip, as lines; raise ValueError if it lists nothing."""
    path = HELPERS.parent / "environment.yml"
    found = REQUIREMENT.findall(path.read_text("utf8"))
    if not found:
        raise ValueError(f"{path} lists no package")
    return found


def resolved_versions(python, folder, constraints):
    """Return {package: version} of all that the environments need under this Python.

    folder: an empty one, for a virtual environment. Raises ValueError with pip's last words where it fails.
    """
    given, bound = folder / "requirements.txt", folder / "constraints.txt"
    given.write_text("\n".join(requirements()), "utf8")
    bound.write_text("".join(f"{name}=={version}\n" for name, version in constraints.items()), "utf8")
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    done = subprocess.run(
        [folder / "venv" / "bin" / "python", "-m", "pip", "install", "--dry-run", "--ignore-installed",
         "--quiet", "--disable-pip-version-check", "--report", folder / "report.json", "-c", bound, "-r",
         given,
         "-r", HELPERS / "bench" / "requirements.txt"], cwd=HELPERS.parent, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"pip finds no versions for {python}: {done.stderr.strip()[-2000:]}")
    report = json.loads((folder / "report.json").read_text("utf8"))
    return {re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower(): entry["metadata"]["version"]
            for entry in report["install"] if "dir_info" not in entry["download_info"]}  # helpers itself


def main():
    """Write the lock anew."""
    found, done = {}, []
    for version in PYTHONS:
        if python := which(f"python{version}"):
            print(f"Python {version} ...", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                found |= resolved_versions(python, Path(folder), found)
            done.append(version)
    if not done:
        raise ValueError(f"there is no {' or '.join(f'python{version}' for version in PYTHONS)} here")
    lines = [f"# Made by `make lock` from environment.yml, for Python {', '.join(done)}.",
             *(f"{name}=={version}" for name, version in sorted(found.items()))]
    partial = LOCK.with_name(f".{LOCK.name}.part")
    partial.write_text("\n".join(lines) + "\n", "utf8")
    partial.replace(LOCK)
    print(f"{len(found)} packages in {LOCK.relative_to(HELPERS.parent)}, for Python {', '.join(done)}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"make lock: {error}")
