"""Addresses of boards, the host keys that are trusted there, and the key that logs in."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncssh

from runtimes.errors import BadInput

DEFAULT_PORT = 22
HOST_KEY_KINDS = (
    *("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("rsa-sha2-512", "rsa-sha2-256"),
)


@dataclass(frozen=True)
class Address:
    """A board as the user named it: `user` is None for the local user's name."""

    target: str
    host: str
    port: int
    user: str | None

    @staticmethod
    def of(target: str) -> Address:
        """The address in `ssh://user@host[:port]`.

        Raises BadInput for a target that is none.
        """
        remedy = "give ssh://user@host[:port]"
        try:
            parts = urlsplit(target)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise BadInput(f"no address of a board ({error})", where=target, remedy=remedy) from error
        if parts.scheme != "ssh" or not host or parts.path or parts.query or parts.fragment or parts.password:
            raise BadInput("no address of a board", where=target, remedy=remedy)
        return Address(target, host, port or DEFAULT_PORT, parts.username)


class HostKeys(asyncssh.SSHClient):
    """Asked about a host key that the file of known hosts does not vouch for; `problem` is why it was refused."""

    def __init__(self, address: Address, known: asyncssh.SSHKnownHosts, file: Path, accept: bool) -> None:
        self._address, self._known, self._file, self._accept = address, known, file, accept
        self.problem: BadInput | None = None
        self.accepted = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Refuse a changed key always, and an unknown one unless it is to be accepted: then note it down."""
        names = self.names(host, addr)
        seen = f"{key.get_algorithm()} {key.get_fingerprint()}"
        if any(key in self._known.match(name, "", None)[2] for name in names):  # asyncssh forgets those of a port
            self.problem = BadInput(
                f"its host key is revoked ({seen})", where=self._address.target, remedy=f"see {self._file}"
            )
        elif any(self._known.match(name, "", None)[0] for name in names):
            self.problem = BadInput(
                f"its host key has changed to {seen}: the board was set up anew, or another one answers",
                where=self._address.target,
                remedy=f"if you know why, remove the old key with ssh-keygen -f {shlex.quote(str(self._file))} "
                f"-R {shlex.quote(names[0])}",
            )
        elif not self._accept:
            self.problem = BadInput(
                f"its host key is unknown ({seen})",
                where=self._address.target,
                remedy="compare it with what ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub prints on the board, then give "
                "--accept-new-host-key",
            )
        else:
            self._note(names[0], key)
            self.accepted = seen
        return self.problem is None

    def names(self, *hosts: str) -> list[str]:
        """What a file of known hosts calls the board at these hosts or addresses."""
        port = self._address.port
        return [host if port == DEFAULT_PORT else f"[{host}]:{port}" for host in hosts if host]

    def _note(self, name: str, key: asyncssh.SSHKey) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self._file, "ab+") as file:
            file.seek(0)
            old = file.read()
            line = f"{name} {key.export_public_key('openssh').decode().strip()}\n".encode()
            file.write(line if not old or old.endswith(b"\n") else b"\n" + line)


def read_known_hosts(file: Path) -> asyncssh.SSHKnownHosts:
    """The known hosts of a file, none where it is missing.

    Raises BadInput for one that cannot be read.
    """
    try:
        return asyncssh.import_known_hosts(file.read_text(encoding="utf-8") if file.is_file() else "")
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot be read ({error})", where=str(file), remedy="mend or remove that line") from error


def host_key_kinds(known: asyncssh.SSHKnownHosts, names: Sequence[str]) -> list[str]:
    """The kinds of host keys to ask for: those first that the board is known by, so that a new kind is no change.

    The others are asked for too: a board that no longer has the key that it is known by is to be told as such.
    """
    matched = [known.match(name, "", None) for name in names]
    seen = {kind.decode() for keys, *_ in matched for key in keys for kind in key.sig_algorithms}
    kinds = sorted(HOST_KEY_KINDS, key=lambda kind: kind not in seen)
    if any(authorities for _, authorities, *_ in matched):
        kinds = [f"{kind}-cert-v01@openssh.com" for kind in HOST_KEY_KINDS] + kinds
    return kinds


def private_key(identity: Path) -> asyncssh.SSHKey:
    """The private key in a file.

    Raises BadInput for a file that is missing, none, or locked.
    """
    try:
        return asyncssh.read_private_key(identity)
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(identity), remedy="check the path") from error
    except asyncssh.KeyImportError as error:
        if "assphrase" in str(error):
            remedy = "load it with ssh-add and leave out --identity"
            raise BadInput("the key has a passphrase", where=str(identity), remedy=remedy) from error
        raise BadInput(
            f"no private key ({error})", where=str(identity), remedy="give the key's private half"
        ) from error
