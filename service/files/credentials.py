"""Passwords and public keys for SFTP. Pure, except for the randomness of new passwords and salts."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import struct

_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Without characters that look alike.
_LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_PASSWORD_LENGTH = 20
# scrypt's cost: 2^10 rounds over 1 MiB. Nobody can guess a generated password of 116 bits, however cheap a guess is.
# But anybody who can reach sshd can make it compute this hash, so it must not use much memory.
_LOG_ROUNDS, _BLOCK, _PARALLEL = 10, 8, 1

_CURVES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 16384
MAX_KEY_LENGTH = 4096


def new_password() -> str:
    """A random password that can be read out on the telephone."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_PASSWORD_LENGTH))


def password_hash(password: str, salt: bytes | None = None) -> str:
    """Hash a password with scrypt in the format `$7$` of crypt(5), which libxcrypt, and so sshd, supports.

    `salt` is random by default.
    """
    text = _encode(salt if salt is not None else secrets.token_bytes(16))
    key = hashlib.scrypt(password.encode(), salt=text.encode(), n=1 << _LOG_ROUNDS, r=_BLOCK, p=_PARALLEL, dklen=32)
    return f"$7${_ALPHABET[_LOG_ROUNDS]}{_number(_BLOCK)}{_number(_PARALLEL)}{text}${_encode(key)}"


def public_key(line: str) -> str:
    """Check an OpenSSH public key and return it in a normal form.

    Options before the key (`command=`, `from=`, …) are refused: customers must not decide what a session may do.

    Raises:
        ValueError: The key is invalid; the message is meant for the client.
    """
    if len(line) > MAX_KEY_LENGTH:
        raise ValueError(f"must not be longer than {MAX_KEY_LENGTH} characters")
    # A line from `cat key.pub` ends in a newline.
    line = line.strip()
    if any(not character.isprintable() and character != "\t" for character in line):
        raise ValueError("must be one line of printable characters")
    if "PRIVATE KEY" in line:
        raise ValueError("is a private key; never share it, and replace it now")
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
        raise ValueError("is not a complete public key") from error
    if not fields or fields[0] != kind.encode():
        raise ValueError(f"says {kind}, but contains another type of key")
    if not check(kind, fields[1:]):
        raise ValueError(f"is not a valid {kind} key (RSA needs at least {_MIN_RSA_BITS} bits)")
    return " ".join(parts)


def _fields(blob: bytes) -> list[bytes]:
    """Split RFC 4251's strings, each after its length. Raises ValueError or struct.error if one is cut off."""
    fields = []
    while blob:
        (length,) = struct.unpack_from(">I", blob)
        if len(blob) < 4 + length:
            raise ValueError("cut off")
        fields.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return fields


def _ed25519(kind: str, fields: list[bytes]) -> bool:
    return len(fields) == 1 and len(fields[0]) == 32


def _ecdsa(kind: str, fields: list[bytes]) -> bool:
    curve = kind.removeprefix("ecdsa-sha2-")
    return len(fields) == 2 and fields[0] == curve.encode() and len(fields[1]) == _CURVES[curve] and fields[1][0] == 4


def _rsa(kind: str, fields: list[bytes]) -> bool:
    if len(fields) != 2:
        return False
    exponent, modulus = (int.from_bytes(field) for field in fields)
    return exponent % 2 == 1 and exponent > 1 and _MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS


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
    """Encode 30 bits, low bits first, as crypt(5)'s `$7$` encodes its parameters."""
    return "".join(_ALPHABET[value >> shift & 63] for shift in range(0, 30, 6))


def _encode(raw: bytes) -> str:
    """Encode bytes in groups of three, low bits first."""
    text = ""
    for start in range(0, len(raw), 3):
        group = raw[start : start + 3]
        value = int.from_bytes(group, "little")
        text += "".join(_ALPHABET[value >> shift & 63] for shift in range(0, len(group) * 8, 6))
    return text
