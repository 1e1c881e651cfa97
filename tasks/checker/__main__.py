"""`python -m checker CERTIFICATE`: checks a certificate; exit code 0 where all of it is proved."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .certificate import read_certificate
from .check import check
from .refused import RefusedError


def main() -> int:
    """Prints a line for each question that is not proved, and how many are."""
    parser = argparse.ArgumentParser(prog="checker", description="Checks a certificate.")
    parser.add_argument("certificate", type=Path, help=".npz file")
    parser.add_argument("--network", type=Path, help="ONNX file; the one named, beside it")
    parser.add_argument("--property", type=Path, help="VNN-LIB file; likewise, if it is of one")
    parser.add_argument("--exact", action="store_true", help="in rational arithmetic, slowly")
    parser.add_argument("--only", action="append", default=[], help="this question", metavar="NAME")
    given = parser.parse_args()
    try:
        header, _ = read_certificate(given.certificate)
        beside = {
            name: given.certificate.with_name(Path(header[f"{name}_file"]).name)
            for name in ("network", "property")
            if f"{name}_file" in header
        }
        network = given.network or beside["network"]
        prop = given.property or beside.get("property")
        results = check(given.certificate, network, prop, exact=given.exact, only=given.only)
    except (RefusedError, OSError, LookupError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    for result in results:
        if not result.proved:
            print(f"{result.name}: not proved: {result.reason}")
    proved = sum(result.proved for result in results)
    deployed = sum(result.deployed for result in results)
    print(f"{proved} of {len(results)} proved, {deployed} of the float32 model as well")
    return 0 if results and proved == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
