"""Holds the pixels of real DICOM files against pydicom's, file by file, at their own size.

    dicom.py [FOLDER...]

Without a folder: the test files of the packages pydicom and pydicom-data, which are not part of this repository. Needs those
and what tests/data/make_dicom.py needs; `cargo build --release --example dicom` before (or HPSEARCH_DICOM names the binary).
Prints one line a file: the largest and the mean difference in grey levels, or both sides' reasons for refusing it.
"""
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import pydicom

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "data"))
from make_dicom import shown  # noqa: E402

BINARY = os.environ.get("HPSEARCH_DICOM", ROOT / "target" / "release" / "examples" / "dicom")


def folders():
    if sys.argv[1:]:
        return [pathlib.Path(a) for a in sys.argv[1:]]
    found = [pathlib.Path(pydicom.__file__).parent / "data"]
    store = importlib.util.find_spec("data_store")
    if store:
        found += [pathlib.Path(place) for place in store.submodule_search_locations]
    return found


def is_dicom(path):
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def reference(path):
    ds = pydicom.dcmread(path)
    if "PixelData" not in ds:
        raise ValueError("no pixels")
    if int(ds.get("NumberOfFrames") or 1) > 1:
        raise ValueError("several frames")
    pixels = shown(ds)
    return ds, pixels


def main():
    warnings.simplefilter("ignore")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    files = [p for folder in folders() for p in sorted(folder.rglob("*")) if p.is_file() and is_dicom(p)]
    out = pathlib.Path(tempfile.mkdtemp())
    compared, far, refused = 0, [], 0
    for number, path in enumerate(files):
        name = "/".join(path.parts[-2:])
        try:
            ds, pixels = reference(path)
            colour = "rgb" if ds.SamplesPerPixel == 3 else "grey"
            theirs = None
        except Exception as error:  # whatever it is, it is pydicom's reason
            theirs, colour = f"{type(error).__name__}: {error}".splitlines()[0][:60], "grey"
        line = subprocess.run([BINARY, out, colour, path], capture_output=True, text=True)
        if line.returncode != 0:
            print(f"CRASHED  {name}: {line.stderr[-300:]}")
            far.append(name)
            continue
        words = line.stdout.split(maxsplit=2)
        if words[1] == "error":
            refused += 1
            print(f"refused  {name}: {words[2].strip()}" + (f" [pydicom: {theirs}]" if theirs else " [pydicom reads it]"))
            continue
        ours = np.fromfile(out / "0.raw", np.uint8)
        if theirs:
            print(f"ALONE    {name}: read here, by pydicom not: {theirs}")
            continue
        difference = np.abs(ours - pixels.ravel())
        compared += 1
        # Greys are rounded to whole levels here, and not there.
        if difference.max() > 1.0:
            far.append(name)
        syntax = ds.file_meta.TransferSyntaxUID.name[:40]
        verdict = "same    " if difference.max() <= 0.51 else "close   " if difference.max() <= 1.0 else "DIFFERS "
        print(f"{verdict} {name}: {difference.max():.2f} mean {difference.mean():.3f}"
              f" ({ds.PhotometricInterpretation}, {ds.BitsStored} bits, {syntax})")
    print(f"{compared} compared, {len(far)} differ by more than one level: {', '.join(far) or 'none'}; {refused} refused")


if __name__ == "__main__":
    main()
