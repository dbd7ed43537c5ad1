"""A corpus of many small inputs in one file, gzip: each behind its length, 4 bytes, lowest first.

    corpus.py unpack FILE FOLDER      corpus.py pack FOLDER FILE
"""

import gzip
import hashlib
import pathlib
import sys


def unpack(file, folder):
    folder.mkdir(parents=True, exist_ok=True)
    packed = gzip.decompress(file.read_bytes()) if file.exists() else b""
    while packed:
        end = 4 + int.from_bytes(packed[:4], "little")
        (folder / hashlib.sha1(packed[4:end]).hexdigest()).write_bytes(packed[4:end])
        packed = packed[end:]


def pack(folder, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    inputs = sorted(each.read_bytes() for each in folder.iterdir())
    packed = b"".join(len(each).to_bytes(4, "little") + each for each in inputs)
    # Without a time: the same inputs make the same file.
    file.write_bytes(gzip.compress(packed, mtime=0))


what, one, other = sys.argv[1:]
{"unpack": unpack, "pack": pack}[what](pathlib.Path(one), pathlib.Path(other))
