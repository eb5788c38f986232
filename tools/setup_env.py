"""Create or update the environment of this repository: ``python tools/setup_env.py [.venv]``.

Only the standard library, and only syntax that old Pythons can parse: on Python 3.6 it still has to be able to
say that Python 3.6 is too old. A failure ends in one message that says what is wrong and what to do.
"""

import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MINIMUM = (3, 11)
NEEDED_GB = 3  # .venv takes 2 GB with the CPU build of torch; pip unpacks beside it

# What pip prints when it fails, and what that means. The first entry that matches decides, so the order is from
# the cause to its consequences: without a network pip ends with "No matching distribution found" as well.
PIP_FAILURES = (
    (
        ("No space left on device", "Disk quota exceeded", "[Errno 28]"),
        "The disk is full.",
        "Free about {gb} GB where this repository and the temporary folder lie (another temporary folder:\n"
        "  TMPDIR=/some/folder make ...), then run the command again; it goes on where it stopped.",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED", "SSLCertVerificationError"),
        "The connection to the package index is not trusted: its certificate could not be verified.",
        "Behind a company proxy, point pip at the proxy's certificate: PIP_CERT=/path/to/ca.pem make ...",
    ),
    (
        ("ProxyError", "Tunnel connection failed", "407 Proxy Authentication"),
        "The proxy refused the connection to the package index.",
        "Check HTTPS_PROXY (and its user name and password), then run the command again.",
    ),
    (
        (
            "NewConnectionError",
            "NameResolutionError",
            "ConnectTimeoutError",
            "ReadTimeoutError",
            "Read timed out",
            "Connection refused",
            "ConnectionResetError",
            "Temporary failure in name resolution",
            "Network is unreachable",
        ),
        "The package index cannot be reached: no network, or a firewall or proxy in between.",
        "Connect to the network (behind a proxy: HTTPS_PROXY=http://host:port make ...) and run the command\n"
        "  again. Once the environment exists, building, serving and testing work without a network.",
    ),
    (
        ("Permission denied", "[Errno 13]"),
        "A file could not be written: permission denied.",
        "Make sure you own this folder and its .venv (ls -ld . .venv), or remove .venv and try again.",
    ),
    (
        (
            "No matching distribution found",
            "requires a different Python",
            "ResolutionImpossible",
            "resolution-too-deep",
        ),
        "No release of a package fits this Python, this platform and constraints.txt (see the lines above).",
        "Use a Python between 3.11 and 3.14 (rm -r .venv, then make PYTHON=python3.12 ...), or, to move to\n"
        "  newer releases, refresh the pins with: make lock",
    ),
)


class SetupError(Exception):
    """What is wrong, and what to do about it."""

    def __init__(self, problem, advice):
        super().__init__(problem)
        self.problem, self.advice = problem, advice

    def __str__(self):
        return f"error: {self.problem}\n  {self.advice}"


def check_python(version=sys.version_info):
    """Refuse a Python that the project does not support."""
    if tuple(version[:2]) < MINIMUM:
        raise SetupError(
            "attn_guide needs Python {}.{} or newer; {} is Python {}.{}.{}.".format(
                *MINIMUM, sys.executable or "this", *version[:3]
            ),
            "Install a newer Python and name it: make PYTHON=/path/to/python3.12 ...",
        )


def check_disk(folder):
    """Refuse to start what would fill the disk."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < NEEDED_GB:
        raise SetupError(
            f"Not enough disk space: {free:.1f} GB are free at {folder}, about {NEEDED_GB} GB are needed.",
            "Free some space and run the command again (a CUDA build of torch needs several GB more).",
        )


def run(command):
    """Run a command, show its output as it comes, and return its exit status and output."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    lines = []
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    return process.wait(), "".join(lines)


def explain_pip(output):
    """Turn the output of a pip that failed into a SetupError."""
    for marks, problem, advice in PIP_FAILURES:
        if any(mark in output for mark in marks):
            return SetupError(problem, advice.format(gb=NEEDED_GB))
    return SetupError("pip failed; its last lines are above.", "Remove .venv (rm -r .venv) and try again.")


def venv_works(python):
    """Whether the environment has a supported Python that still starts, and pip in it."""
    probe = f"import sys, pip; sys.exit(sys.version_info < {MINIMUM!r})"
    try:
        return subprocess.call([python, "-c", probe], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def create_venv(folder, run=run):
    """Create the environment; Debian and Ubuntu package the module for it separately."""
    status, output = run([sys.executable, "-m", "venv", "--clear", folder])
    if status == 0:
        return
    shutil.rmtree(folder, ignore_errors=True)
    if "No module named venv" in output or "ensurepip" in output:
        raise SetupError(
            f"This Python ({sys.executable}) cannot create environments: its venv module is missing or incomplete.",
            "On Debian or Ubuntu: sudo apt-get install python{}.{}-venv  (or python3-venv).\n"
            "  Elsewhere, use a Python that has it: make PYTHON=/path/to/python3.12 ...".format(*sys.version_info[:2]),
        )
    raise explain_pip(output)


def setup(folder, run=run):
    """Bring the environment in ``folder`` up to date with pyproject.toml and constraints.txt."""
    check_python()
    python = os.path.join(folder, "bin", "python")
    if not venv_works(python):
        check_disk(os.path.dirname(os.path.abspath(folder)))
        print("Creating {} with {} (Python {}.{}.{})".format(folder, sys.executable, *sys.version_info[:3]))
        create_venv(folder, run)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    for arguments in (
        ["--quiet", "--upgrade", "pip"],
        ["-c", os.path.join(ROOT, "constraints.txt"), "-e", ROOT + "[test]"],
    ):
        status, output = run(pip + arguments)
        if status != 0:
            raise explain_pip(output)
    # Only now: an interrupted set-up has no stamp, so the next make goes on with it.
    with open(os.path.join(folder, ".installed"), "w") as stamp:
        stamp.write("make compares the date of this file with pyproject.toml and constraints.txt\n")


def main(arguments):
    start = time.time()
    folder = arguments[0] if arguments else os.path.join(ROOT, ".venv")
    try:
        setup(folder)
    except SetupError as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"\n{explain_pip(str(error)) if error.errno in (13, 28) else error}\n")
        return 1
    print(f"Environment ready in {folder} ({time.time() - start:.0f} s).")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
