#!/usr/bin/env python3
"""Makes the PTX of the corpus and its manifest, or checks that they are what the compilers make.

    make.py SITE12 SITE13 [--check]

SITE12, SITE13: site-packages folders with the wheels that requirements12.txt and requirements13.txt pin.
Each source is compiled by NVRTC 12.0 (PTX 8.0) and by nvcc 13.5, without line info, so the bytes do not depend on
the folder. The manifest holds a SHA-256 digest of every source and every PTX, the options and the versions.
"""
import ctypes
import glob
import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ARCH = "compute_80"


def digest(data):
    return hashlib.sha256(data).hexdigest()


def nvrtc(site, source):
    base = os.path.join(site, "nvidia")
    lib = ctypes.CDLL(os.path.join(base, "cuda_nvrtc/lib/libnvrtc.so.12"))
    options = ["--gpu-architecture=" + ARCH, "--std=c++17"]
    includes = ["-I" + os.path.join(base, d, "include") for d in ("cuda_runtime", "cuda_nvcc")]
    program = ctypes.c_void_p()
    code = open(source, "rb").read()
    lib.nvrtcCreateProgram(ctypes.byref(program), code, os.path.basename(source).encode(), 0, None, None)
    all_options = [o.encode() for o in options + includes]
    failed = lib.nvrtcCompileProgram(program, len(all_options), (ctypes.c_char_p * len(all_options))(*all_options))
    size = ctypes.c_size_t()
    if failed:
        lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        lib.nvrtcGetProgramLog(program, log)
        raise RuntimeError(f"{source}: {log.value.decode()}")
    lib.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetPTX(program, ptx)
    return ptx.value, options


def apart(f, *arguments):
    """Calls a function in a process of its own: NVRTC numbers calls through the life of a process."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(f, arguments)


def nvcc(site, source):
    options = ["-std=c++17", "-O3", "--ptx", "-arch=" + ARCH]
    compiler = os.path.join(site, "nvidia/cu13/bin/nvcc")
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.ptx")
        # A relative name: the compiler writes it into internal symbols.
        subprocess.run([compiler, *options, os.path.basename(source), "-o", out], cwd=HERE, check=True)
        ptx = open(out, "rb").read()
        # Names with internal linkage hold a hash of the folder.
        return re.sub(rb"_INTERNAL_[0-9a-f]{8}_", b"_INTERNAL_00000000_", ptx), options


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    site12, site13 = sys.argv[1:3]
    check = "--check" in sys.argv
    manifest = {"arch": ARCH, "compilers": {}, "files": {}}
    for name in ("requirements12.txt", "requirements13.txt"):
        manifest["compilers"][name] = open(os.path.join(HERE, name)).read().split()
    os.makedirs(os.path.join(HERE, "ptx"), exist_ok=True)
    wrong = []
    for source in sorted(glob.glob(os.path.join(HERE, "*.cu"))):
        stem = os.path.splitext(os.path.basename(source))[0]
        entry = {"source": digest(open(source, "rb").read()), "ptx": {}}
        for label, (ptx, options) in {"nvrtc12": apart(nvrtc, site12, source), "nvcc13": nvcc(site13, source)}.items():
            path = os.path.join(HERE, "ptx", f"{stem}.{label}.ptx")
            if check and (not os.path.exists(path) or open(path, "rb").read() != ptx):
                wrong.append(path)
            if not check:
                open(path, "wb").write(ptx)
            entry["ptx"][label] = {"digest": digest(ptx), "options": options}
        manifest["files"][stem] = entry
    path = os.path.join(HERE, "manifest.json")
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    if check:
        if open(path).read() != text:
            wrong.append(path)
        if wrong:
            sys.exit("not what the compilers make: " + ", ".join(wrong))
    else:
        open(path, "w").write(text)


main()
