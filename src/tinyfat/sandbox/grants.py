"""What a program in the sandbox may read: the system, its interpreter, and what it is told to run with."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store")
# Not all of /etc: an operator who is root could read the host's passwords in it.
ETC = (
    *(
        "alternatives",
        "ca-certificates",
        "crypto-policies",
        "debian_version",
        "fonts",
        "gai.conf",
        "group",
        "host.conf",
    ),
    *("hostname", "hosts", "inputrc", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "login.defs"),
    *("lsb-release", "magic", "mime.types", "networks", "nsswitch.conf", "os-release", "passwd", "pki"),
    *("profile", "profile.d", "protocols", "resolv.conf", "services", "shells", "terminfo", "timezone", "vim"),
    *("bash.bashrc", "ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "python3", "python3.11", "python3.12"),
    *("python3.13", "perl", "java", "ImageMagick-6", "ImageMagick-7"),
)
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")  # variables that name a file or folder
KERNEL_FACTS = ("/sys/devices/system/cpu",)  # how many processors there are
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


@dataclass(frozen=True, slots=True)
class Grants:
    """`own`: may do everything below; `read`: may read and run; `listed`: may see the names of what is below; `lent`:
    as `own`, of folders that are others' too."""

    own: Path
    read: tuple[Path, ...]
    listed: tuple[Path, ...] = ()
    lent: tuple[Path, ...] = ()


def system() -> tuple[Path, ...]:
    """Of this host, where it is there. A link out of /etc is followed by `reached`."""
    return _there(map(Path, (*SYSTEM, *(f"/etc/{name}" for name in ETC), *KERNEL_FACTS)))


def interpreter() -> tuple[Path, ...]:
    """This Python and its virtual environment."""
    return _there([Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent])


def packages(names: Iterable[str]) -> tuple[Path, ...]:
    """These packages of Python, wherever they were installed or are edited. An import lists what is beside them."""
    specs = map(importlib.util.find_spec, names)
    return _there(Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None)


def certificates(environment: Mapping[str, str]) -> tuple[Path, ...]:
    return _there(Path(environment[name]) for name in CERTIFICATES if environment.get(name))


def reached(paths: Iterable[Path]) -> tuple[Path, ...]:
    """These and where their links lead, outermost first, without what lies below another of them. Of a link into /run
    the whole folder: what manages the network replaces the file in it."""
    found = set()
    for path in paths:
        found.add(path)
        real = path.resolve()
        if real != path:
            found.add(real.parent if real.is_relative_to("/run") and real.is_file() else real)
    ordered = sorted(found, key=lambda path: (len(path.parts), path))
    kept: list[Path] = []
    for path in ordered:
        if not any(path.is_relative_to(over) and not over.is_symlink() for over in kept):
            kept.append(path)
    return tuple(kept)


def without(paths: Iterable[Path], secret: Path) -> tuple[Path, ...]:
    """What would show the folder `secret` is left out: an operator may keep it below /opt."""
    real = secret.resolve()
    return tuple(path for path in paths if not real.is_relative_to(path.resolve()))


def _there(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(path for path in paths if path.is_absolute() and path != Path("/") and os.path.lexists(path))
