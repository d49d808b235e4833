"""Where the embedded services live on disk: folder, lock, secrets, binaries and the user who owns them."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import pwd
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saas.processes import Account, ProcessFailed

OUTSIDE = Path("/var/lib/cloister")  # used only when root's data folder lies where the service user cannot go


@dataclass(frozen=True)
class Home:
    """The folder of one data directory's services.

    `place` belongs to the service user (0700); `state` and `logs` belong to the person who starts Cloister.
    """

    data_dir: Path
    place: Path
    account: Account | None

    @property
    def state(self) -> Path:
        return self.data_dir / "run"

    def log_file(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"


def open_home(data_dir: Path) -> Home:
    """Make (or find again) the services' folder of `data_dir`; as root, drop to an ordinary user.

    Raises ProcessFailed with a sentence when the folder belongs to somebody else.
    """
    data_dir = data_dir.absolute()
    is_root = os.geteuid() == 0
    data_dir.mkdir(mode=0o711 if is_root else 0o700, parents=True, exist_ok=True)
    for name in ("run", "logs"):
        (data_dir / name).mkdir(mode=0o700, exist_ok=True)
    link = data_dir / "services"
    if not is_root:
        link.mkdir(mode=0o700, exist_ok=True)
        if link.resolve().stat().st_uid != os.geteuid():
            raise ProcessFailed(
                f"{link} belongs to another user (was Cloister started as root before?). "
                "Start it as that user again, or set DATA_DIR to a new folder."
            )
        return Home(data_dir, link, None)
    return _open_as_root(data_dir, link)


def _open_as_root(data_dir: Path, link: Path) -> Home:
    if link.exists() and link.stat().st_uid != 0:
        account = _account(link.stat().st_uid)
    else:
        account = _nobody()
        data_dir.chmod(data_dir.stat().st_mode | 0o011)
        place = link if _can_reach(data_dir, account) else _outside(data_dir)
        place.mkdir(mode=0o700, exist_ok=True)
        os.chown(place, account.uid, account.gid)
        if place != link:
            link.unlink(missing_ok=True)
            link.symlink_to(place)
    place = link.resolve()
    if not _can_reach(place.parent, account):
        raise ProcessFailed(
            f"The user {account.name}, who runs the database, cannot enter {place.parent}. "
            f"Allow it (chmod o+x on its folders) or set DATA_DIR to another folder."
        )
    return Home(data_dir, place, account)


def _outside(data_dir: Path) -> Path:
    OUTSIDE.mkdir(mode=0o755, parents=True, exist_ok=True)
    marker = data_dir / "run" / "outside"
    # A random part: a deleted and remade data folder must not find the old cluster with lost passwords.
    if not marker.exists():
        digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]
        _write_private(marker, f"{digest}-{secrets.token_hex(4)}")
    return OUTSIDE / marker.read_text().strip()


def _account(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise ProcessFailed(f"The services' folder belongs to user id {uid}, which does not exist.") from None
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def _nobody() -> Account:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise ProcessFailed(
            "PostgreSQL refuses to run as root and there is no user 'nobody' here. Start as an ordinary user."
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


def _can_reach(path: Path, account: Account) -> bool:
    """Whether `account` may enter (or, for a file, read and run) `path` and enter every folder above it."""
    for part in (path, *path.parents):
        status = part.stat()
        if status.st_uid == account.uid:
            bits = status.st_mode >> 6
        elif status.st_gid == account.gid:
            bits = status.st_mode >> 3
        else:
            bits = status.st_mode
        needed = 0o5 if part == path and not part.is_dir() else 0o1
        if bits & needed != needed:
            return False
    return True


def package_dir(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ProcessFailed(
            f"The package {name} is not installed. Run `make run` again, "
            "or set DATABASE_URL and REDIS_URL to servers of your own."
        )
    return Path(spec.submodule_search_locations[0])


def reachable(home: Home, *, package: str, extra: tuple[str, ...], probe: str) -> Path:
    """The package's folder, or a copy of it inside `home` when the service user cannot run `probe` in it.

    `extra` names sibling folders that the binaries need (bundled libraries).
    """
    source = package_dir(package)
    if home.account is None or _can_reach((source / probe).resolve(), home.account):
        return source
    binary = (source / probe).stat()
    target = home.place / "bin" / f"{package}-{binary.st_size}-{int(binary.st_mtime)}"
    if not target.exists():
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for name in (package, *extra):
            shutil.copytree(
                source.parent / name, partial / name, ignore=shutil.ignore_patterns("include", "*.a")
            )
        _open_tree(partial)
        target.parent.chmod(0o755)
        partial.rename(target)
    return target / package


def _open_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        Path(root).chmod(0o755)
        for name in names:
            Path(root, name).chmod(0o755)


class Lock:
    """An exclusive lock on one service of one data directory, held while this object lives."""

    def __init__(self, home: Home, service: str) -> None:
        path = home.state / f"{service}.lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise ProcessFailed(
                f"Cloister already runs in {home.data_dir}. Stop it first, or set DATA_DIR to another folder."
            ) from None

    def release(self) -> None:
        os.close(self._fd)


def load_or_make_passwords(home: Home, service: str, names: tuple[str, ...]) -> dict[str, str]:
    """Random passwords of a service, kept in a file that only the starting user can read."""
    path = home.state / f"{service}.passwords"
    if path.exists():
        known: dict[str, str] = json.loads(path.read_text())
        if set(names) <= set(known):
            return known
    made = {name: secrets.token_urlsafe(24) for name in names}
    _write_private(path, json.dumps(made))
    return made


def write_state(home: Home, service: str, **facts: object) -> None:
    """Record a running service's port and process id, for commands started in another terminal."""
    _write_private(home.state / f"{service}.json", json.dumps(facts))


def read_state(data_dir: Path, service: str) -> dict[str, Any] | None:
    """What write_state recorded, or None when the service was never started or was stopped."""
    path = data_dir / "run" / f"{service}.json"
    if not path.exists():
        return None
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def forget_state(home: Home, service: str) -> None:
    """Remove a stopped service's record."""
    (home.state / f"{service}.json").unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
