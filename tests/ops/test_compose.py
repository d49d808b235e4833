"""The production-shaped installation: which container holds which key."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import yaml

from modeling.serving.addresses import SPLIT_BASES, split_socket

ROOT = Path(__file__).resolve().parents[2]
KEYS = ("ROOT_KEY_FILE", "RECEIPT_KEY_FILE")
# Who wraps tenants' keys, who signs receipts: nobody else is given the file.
HOLDERS = {"root_key": {"web", "train", "quick"}, "receipt_key": {"web", "train"}}


def test_it_works() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text())
    shared = {mount.split(":")[1] for mount in compose["services"]["engine"]["volumes"]}
    for service in compose["services"].values():
        environment = service.get("environment", {})
        places = [PurePosixPath(environment[name]) for name in KEYS if name in environment]
        assert all(place.parent == PurePosixPath("/run/secrets") for place in places)
        assert not any(str(place).startswith(f"{folder}/") for place in places for folder in shared)
    for secret, holders in HOLDERS.items():
        assert secret in compose["secrets"]
        found = {name for name, one in compose["services"].items() if secret in one.get("secrets", ())}
        assert found == holders


def test_the_engine_holds_no_key() -> None:
    engine = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text())["services"]["engine"]
    assert "secrets" not in engine
    assert not set(KEYS) & set(engine["environment"])


def test_each_base_in_a_container_of_its_own() -> None:
    split = yaml.safe_load((ROOT / "docker" / "compose.split.yml").read_text())["services"]
    assert split["web"]["environment"] == {"ENGINE_SPLIT": "1"}
    engines = {name: one["environment"] for name, one in split.items() if name != "web"}
    served = {one["ENGINE_BASES"]: PurePosixPath(one["ENGINE_SOCKET"]).name for one in engines.values()}
    assert served == {base: split_socket(Path("engine.sock"), base).name for base in SPLIT_BASES}


def test_neither_image_nor_repository_takes_a_key() -> None:
    for name, prefix in ((".dockerignore", ""), (".gitignore", "/")):
        ignored = (ROOT / name).read_text().split()
        assert {f"{prefix}docker/root.key", f"{prefix}docker/receipt.key"} <= set(ignored)
