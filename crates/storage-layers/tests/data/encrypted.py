"""Writes `aes.bin` and `chacha.bin`: the format of encrypted blobs, by an implementation of its own (needs the package `cryptography`)."""
import hashlib
import pathlib
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CHUNK = 1 << 16


def encrypt(plain, path, key, key_id, salt, algorithm):
    header = b"\x93SLENC\r\n" + bytes([1, algorithm, 16, len(key_id)]) + key_id.ljust(32, b"\0") + salt
    header += hashlib.sha256(header).digest()[:4]
    derived = HKDF(SHA256(), 32, salt, b"storage-layers blob encryption 1" + bytes([algorithm])).derive(key)
    cipher = {1: AESGCM, 2: ChaCha20Poly1305}[algorithm](derived)
    chunks = [plain[at:at + CHUNK] for at in range(0, len(plain), CHUNK)] or [b""]
    sealed = header
    for index, chunk in enumerate(chunks):
        nonce = b"\0\0\0" + struct.pack(">Q", index) + bytes([index == len(chunks) - 1])
        sealed += cipher.encrypt(nonce, chunk, header + path.encode())
    return sealed


here = pathlib.Path(__file__).parent
content = bytes(n % 251 for n in range(CHUNK + 100))
for name, path, algorithm in [("aes.bin", "dir/a.bin", 1), ("chacha.bin", "dir/b.bin", 2)]:
    (here / name).write_bytes(encrypt(content, path, bytes(range(32)), b"test-1", bytes(range(100, 132)), algorithm))
