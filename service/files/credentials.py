"""Passwords and public keys for SFTP. Pure, but for the randomness of a new password."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import struct

_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# No letter that is taken for another.
_LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_PASSWORD_LENGTH = 20
# scrypt's cost: 2^10 rounds over 1 MiB. A generated password of 116 bits is guessed by nobody, however cheap one guess
# is; but whoever can reach sshd can make it compute this hash, so it must not cost memory that others miss.
_LOG_ROUNDS, _BLOCK, _PARALLEL = 10, 8, 1

_CURVES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
_LEAST_RSA_BITS, _MOST_RSA_BITS = 2048, 16384
LONGEST_KEY = 4096


def new_password() -> str:
    """A password that nobody has to invent, and that can be read out on the telephone."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_PASSWORD_LENGTH))


def password_hash(password: str, salt: bytes | None = None) -> str:
    """crypt(5)'s `$7$`, scrypt: one of the formats that libxcrypt, and so sshd, knows."""
    text = _encode(salt if salt is not None else secrets.token_bytes(16))
    key = hashlib.scrypt(password.encode(), salt=text.encode(), n=1 << _LOG_ROUNDS, r=_BLOCK, p=_PARALLEL, dklen=32)
    return f"$7${_ALPHABET[_LOG_ROUNDS]}{_number(_BLOCK)}{_number(_PARALLEL)}{text}${_encode(key)}"


def public_key(line: str) -> str:
    """An OpenSSH public key, checked and in one form; raises ValueError with what is wrong in a client's words.

    Options before the key (`command=`, `from=`, …) are refused: what a session may do is not the customer's to say.
    """
    if len(line) > LONGEST_KEY:
        raise ValueError(f"must not be longer than {LONGEST_KEY} characters")
    # The line as `cat key.pub` gives it ends in a newline.
    line = line.strip()
    if any(not character.isprintable() and character != "\t" for character in line):
        raise ValueError("must be one line of printable characters")
    if "PRIVATE KEY" in line:
        raise ValueError("is a private key; it belongs to nobody but its owner, and should now be replaced")
    parts = line.split(maxsplit=2)
    if len(parts) < 2:
        raise ValueError("must look like `ssh-ed25519 AAAA… comment`")
    kind, encoded = parts[:2]
    check = _KINDS.get(kind)
    if check is None:
        raise ValueError(f"must begin with one of {', '.join(_KINDS)}, without options before it")
    try:
        fields = _fields(base64.b64decode(encoded, validate=True))
    except (binascii.Error, struct.error, ValueError) as error:
        raise ValueError("is not a whole public key") from error
    if not fields or fields[0] != kind.encode():
        raise ValueError(f"says {kind}, but holds another kind of key")
    if not check(kind, fields[1:]):
        raise ValueError(f"is no sound {kind} key (RSA needs {_LEAST_RSA_BITS} bits)")
    return " ".join(parts)


def _fields(blob: bytes) -> list[bytes]:
    """RFC 4251's strings: each with its length before it. Raises ValueError for one that is cut off."""
    found = []
    while blob:
        (length,) = struct.unpack_from(">I", blob)
        if len(blob) < 4 + length:
            raise ValueError("cut off")
        found.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return found


def _ed25519(kind: str, fields: list[bytes]) -> bool:
    return len(fields) == 1 and len(fields[0]) == 32


def _ecdsa(kind: str, fields: list[bytes]) -> bool:
    curve = kind.removeprefix("ecdsa-sha2-")
    return len(fields) == 2 and fields[0] == curve.encode() and len(fields[1]) == _CURVES[curve] and fields[1][0] == 4


def _rsa(kind: str, fields: list[bytes]) -> bool:
    if len(fields) != 2:
        return False
    exponent, modulus = (int.from_bytes(field) for field in fields)
    return exponent % 2 == 1 and exponent > 1 and _LEAST_RSA_BITS <= modulus.bit_length() <= _MOST_RSA_BITS


def _security_key(kind: str, fields: list[bytes]) -> bool:
    if len(fields) < 2 or not fields[-1].startswith(b"ssh:"):
        return False
    inner = fields[:-1]
    return _ed25519(kind, inner) if "ed25519" in kind else _ecdsa("ecdsa-sha2-nistp256", inner)


_KINDS = {
    "ssh-ed25519": _ed25519,
    "ecdsa-sha2-nistp256": _ecdsa,
    "ecdsa-sha2-nistp384": _ecdsa,
    "ecdsa-sha2-nistp521": _ecdsa,
    "ssh-rsa": _rsa,
    "sk-ssh-ed25519@openssh.com": _security_key,
    "sk-ecdsa-sha2-nistp256@openssh.com": _security_key,
}


def _number(value: int) -> str:
    """30 bits, the low ones first, as crypt(5)'s `$7$` writes its parameters."""
    return "".join(_ALPHABET[value >> shift & 63] for shift in range(0, 30, 6))


def _encode(raw: bytes) -> str:
    """Bytes by threes, the low bits first."""
    text = ""
    for start in range(0, len(raw), 3):
        group = raw[start : start + 3]
        value = int.from_bytes(group, "little")
        text += "".join(_ALPHABET[value >> shift & 63] for shift in range(0, len(group) * 8, 6))
    return text
