"""What `certiflow certify` and `certiflow check` do and print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic

from flows.actions.head import write_json
from flows.actions.summary import short
from tasks import console
from tasks.checker.certificate import read_certificate
from tasks.checker.check import Result
from tasks.checker.check import check as checked
from tasks.checker.refused import RefusedError
from tasks.core.errors import CertiflowError

SHOWN = 10  # questions that are not proved, by name


def certify(model: Path, prop: Path, path: Path, timeout: float, json: Path | None) -> None:
    """Writes and checks the certificate.

    Raises:
        CertiflowError: there is nothing to certify, or it did not pass.
    """
    from tasks.core.certificates.certify import certify_property

    for file, kind in ((model, "an ONNX file"), (prop, "a VNN-LIB file")):
        if not file.is_file():
            raise CertiflowError(f"{file}: no such file; give the path of {kind}")
    if model.suffix != ".onnx":
        raise CertiflowError(
            f"{model}: expected an ONNX file, got '{model.suffix}'; runs with "
            "verification.certificates write one of a Keras model"
        )
    started = monotonic()
    result = certify_property(model, prop, path, timeout_seconds=timeout)
    seconds, size = monotonic() - started, path.stat().st_size
    write_json(json, asdict(result) | {"certificate": str(path), "bytes": size, "seconds": seconds})
    if not result.proved:
        raise CertiflowError(f"{path}: the checker did not pass it: {result.reason}")
    print("unsat")
    console.console.print(
        f"certificate {short(str(path))}, {size:,} bytes, {seconds:.2f} s, checked{_also(result)}",
        markup=False,
        soft_wrap=True,
    )


def check(
    certificate: Path,
    model: Path | None,
    prop: Path | None,
    exact: bool,
    only: Sequence[str],
    json: Path | None,
) -> None:
    """Prints what is proved.

    Raises:
        CertiflowError: something is not, or a file is refused.
    """
    started = monotonic()
    try:
        header, _ = read_certificate(certificate)
        found = checked(
            certificate,
            _meant(certificate, header.get("network_file"), model, "--model"),
            _meant(certificate, header.get("property_file"), prop, "--property")
            if "property" in header
            else prop,
            exact=exact,
            only=only,
        )
    except RefusedError as error:
        raise CertiflowError(str(error)) from error
    if not found:
        known = ", ".join(header["names"][:3]) or "none"
        raise CertiflowError(f"{certificate}: no question of this name; it has {known}")
    seconds = monotonic() - started
    write_json(json, {"results": [asdict(result) for result in found], "seconds": seconds})
    proved = sum(result.proved for result in found)
    deployed = sum(result.deployed for result in found)
    left = [result for result in found if not result.proved]
    for result in left[:SHOWN]:
        print(f"{result.name}: not proved: {result.reason}")
    arithmetic = "in rational arithmetic" if exact else "in float64 with rounding covered"
    print(
        f"{proved} of {len(found)} proved {arithmetic}, {deployed} of the float32 model as well, "
        f"{seconds:.2f} s"
    )
    if left:
        raise CertiflowError(f"{certificate}: {len(left)} of {len(found)} are not proved")


def _meant(certificate: Path, name: object, given: Path | None, option: str) -> Path:
    path = given or certificate.with_name(Path(str(name or "")).name or "none")
    if not path.is_file():
        raise CertiflowError(f"{path}: no such file; name it by {option}")
    return path


def _also(result: Result) -> str:
    return ", also of the float32 model" if result.deployed else ""
