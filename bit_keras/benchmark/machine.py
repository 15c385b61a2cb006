"""What a benchmark ran on."""

import dataclasses
import importlib.metadata
import platform
from pathlib import Path

from bit_keras.processes import available_cores

#: Instructions that decide how fast an x86 processor multiplies matrices of float32, bfloat16
#: and int8, as `/proc/cpuinfo` calls them.
_INSTRUCTIONS = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
)

_PACKAGES = (
    *("bit_keras", "keras", "tensorflow", "ai-edge-litert", "onnxruntime", "openvino", "nncf"),
    *("torch", "timm", "transformers", "numpy"),
)


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine and the programs of a benchmark.

    Attributes:
        processor: str. The name that the processor gives itself.
        cores: int. The logical cores that this process may use.
        instructions: tuple of str. Vector instructions that matter here; empty where
            the system does not list them.
        system: str. For example `"Linux 6.1, x86_64"`.
        versions: dict of str. Of Python and of the installed packages.
    """

    processor: str
    cores: int
    instructions: tuple[str, ...]
    system: str
    versions: dict[str, str]

    @classmethod
    def here(cls) -> "Machine":
        """The machine that this process runs on."""
        fields = _processor_fields()
        flags = fields.get("flags", "").split()
        return cls(
            processor=fields.get("model name") or platform.processor() or platform.machine(),
            cores=available_cores(),
            instructions=tuple(name for name in _INSTRUCTIONS if name in flags),
            system=f"{platform.system()} {platform.release()}, {platform.machine()}",
            versions=_versions(),
        )


def _processor_fields() -> dict[str, str]:
    """What Linux tells of the first core."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
