#!/usr/bin/env python3
"""Compiles the CUDA kernels for real architectures, without a GPU: NVRTC makes PTX, ptxas assembles it.

    cuda/check.py [ARCHITECTURE ...]        default: sm_80 sm_90 sm_120

Prints registers, shared memory and spills of each kernel; a spill or a warning is a failure. NVRTC and ptxas come from the packages
nvidia-cuda-nvrtc-cu12 and nvidia-cuda-nvcc-cu12 of the Python that runs this."""

import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).parent
# In the order in which build.rs joins them.
SOURCES = re.findall(r'"(\w+)"', re.search(r"const SOURCES.*?;\n", (FOLDER / "build.rs").read_text())[0])


def packages(name):
    import nvidia

    return pathlib.Path(list(nvidia.__path__)[0]) / name


def ptx(text, architecture):
    """The PTX of `text`, and the compiler's log."""
    nvrtc = ctypes.CDLL(str(next(packages("cuda_nvrtc").glob("lib/libnvrtc.so.*[0-9]"))))
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None) == 0
    options = [f"--gpu-architecture=compute_{architecture.removeprefix('sm_')}", "--std=c++17"]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options)))

    def read(size_of, get):
        size = ctypes.c_size_t()
        size_of(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        get(program, buffer)
        return buffer.value

    log = read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).decode()
    if failed:
        sys.exit(f"{architecture}: the kernels do not compile\n{log}")
    return read(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX), log


def main():
    text = "\n".join((FOLDER / "src" / "kernels" / f"{name}.cu").read_text() for name in SOURCES)
    faults = []
    for architecture in sys.argv[1:] or ["sm_80", "sm_90", "sm_120"]:
        code, log = ptx(text, architecture)
        faults += [f"{architecture}: {line}" for line in log.splitlines() if line.strip()]
        with tempfile.TemporaryDirectory() as room:
            path = pathlib.Path(room) / "kernels.ptx"
            path.write_bytes(code)
            command = [packages("cuda_nvcc") / "bin" / "ptxas", "-v", "-arch", architecture, path, "-o", path.with_suffix(".cubin")]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{architecture}: the kernels cannot be assembled\n{done.stderr}")
        kernel, rows = None, {}
        for line in done.stderr.splitlines():
            if found := re.search(r"Compiling entry function '(\w+)'", line):
                kernel = found[1]
            if found := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
                rows[kernel] = [int(found[1]) + int(found[2])]
            if found := re.search(r"Used (\d+) registers", line):
                shared = re.search(r"(\d+) bytes smem", line)
                rows[kernel] += [int(found[1]), int(shared[1]) if shared else 0]
        print(f"{architecture}: {len(rows)} kernels, {len(code)} bytes of PTX")
        print(f"  {'kernel':28} registers  shared memory  spills")
        for kernel, (spills, registers, shared) in rows.items():
            print(f"  {kernel:28} {registers:9}  {shared:11} B  {spills:4} B")
            if spills:
                faults.append(f"{architecture}: {kernel} spills {spills} bytes")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
