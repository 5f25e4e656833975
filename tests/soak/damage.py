"""How valid input is made hostile: bytes, chunks of PNG, entries of archives, text and options."""

import io
import re
import struct
import warnings
import zipfile
import zlib
from random import Random

_NUMBERS = [b"0", b"-1", b"1e400", b"-1e-400", b"nan", b"inf", b"9" * 20, b"2147483648", b"4294967295", b"0.5"]
_WORDS = [
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"[[[[",
    b"}",
    b"&a *a",
    b"!!python/name:os.system",
    b"\xff\xfe",
    b"\0",
]
_SIZES = [0, 1, 2, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]

VALUES = [
    *("", " ", "0", "-1", "1", "2", "3", "7", "16", "24", "0.5", "-0.5", "1e400", "1e-400", "nan", "inf", "-inf"),
    *("9" * 20, "-" + "9" * 20, "1" + "0" * 400, str(2**31), str(2**32), str(2**63), "0x10", "1_000", "٣", "1e3"),
    *(
        "true",
        "no",
        "None",
        "null",
        "[]",
        "[1]",
        "[1, 2",
        "{}",
        "{a: 1}",
        "&a *a",
        "!!python/name:os.system",
        "@",
        "%s%n",
    ),
    *("é", "漢字", "\u202e", "a\nb", "a\tb", "\x1b[31m", "\x7f", "\udcff", "a" * 300, "a" * 5000, "-", "--", "--path"),
    *(
        "/",
        ".",
        "..",
        "../x",
        "~",
        "*",
        "/dev/null",
        "/dev/zero",
        "/proc/self/mem",
        "fifo",
        "loop",
        "folder",
        "missing",
    ),
]
"""Values of options; some name what `tests.soak.inputs` lays beside every case."""


def damage_bytes(random: Random, data: bytes) -> bytes:
    """Bits flipped, parts cut, repeated, moved or emptied, fields set to extreme numbers; one to four of these."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        at, end = sorted(random.randrange(len(changed) + 1) for _ in range(2))
        if random.random() < 0.5:  # headers lie at the beginning
            at = random.randrange(min(len(changed), 200) + 1)
        end = min(len(changed), max(end, at))
        kind = random.randrange(7)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            changed[at : at + random.choice([1, 2, 4])] = random.randbytes(random.choice([1, 2, 4]))
        elif kind == 3:
            changed[at:at] = changed[at:end][:4096] * random.choice([1, 1, 8])
        elif kind == 4:
            changed[at : at + 64] = bytes(min(64, len(changed) - at))
        elif kind == 5:
            field = struct.pack(random.choice("<>") + random.choice("IH"), 0)
            field = random.choice(_SIZES).to_bytes(8, random.choice(["little", "big"]))[: len(field)]
            changed[at : at + len(field)] = field
        else:
            changed += random.randbytes(random.randrange(1, 100))
    return bytes(changed)


def damage_text(random: Random, data: bytes) -> bytes:
    """Numbers, words and lines replaced, repeated or removed."""
    for _ in range(random.choice([1, 1, 2, 5])):
        kind = random.randrange(5)
        lines = data.split(b"\n")
        tokens = list(re.finditer(rb"[-\w.]+", data))
        if kind < 3 and tokens:
            token = random.choice(tokens)
            word = random.choice(_NUMBERS if kind else _WORDS)
            data = data[: token.start()] + word + data[token.end() :]
        elif kind == 3:
            line = random.randrange(len(lines))
            lines[line : line + 1] = [lines[line]] * random.choice([0, 2, 50])
            data = b"\n".join(lines)
        else:
            data = damage_bytes(random, data)
    return data


def damage_png(random: Random, data: bytes) -> bytes:
    """Contents and order of chunks; their lengths and checksums fit, so that it reaches the decoder."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    which = random.randrange(len(chunks))
    kind, contents = chunks[which]
    choice = random.randrange(4)
    if choice == 0:
        chunks[which : which + 1] = [chunks[which]] * random.choice([0, 2, 9])
    elif choice == 1:
        random.shuffle(chunks)
    elif kind == b"IDAT" and choice == 2:
        unpacked = damage_bytes(random, zlib.decompress(contents))
        chunks[which] = kind, zlib.compress(unpacked)
    else:
        chunks[which] = kind, damage_bytes(random, contents)
    parts = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return data[:8] + b"".join(parts)


def damage_zip(random: Random, data: bytes) -> bytes:
    """An entry damaged, dropped or doubled, in an archive that is whole."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    which = random.randrange(len(entries))
    name, contents = entries[which]
    if random.random() < 0.2:
        entries[which : which + 1] = [entries[which]] * random.choice([0, 2])
    else:
        is_text = name.endswith(".json") or name.rpartition("/")[2].startswith(".z")
        entries[which] = name, (damage_text if is_text else damage_bytes)(random, contents)
    buffer = io.BytesIO()
    method = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", method) as archive:
        for name, contents in entries:  # of which two may have the same name
            archive.writestr(zipfile.ZipInfo(name), contents)
    return buffer.getvalue()
