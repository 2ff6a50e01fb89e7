"""Download of published files: resumes interrupted transfers, checks hashes, and never leaves an incomplete file.

During the download of NAME there is NAME.part. If no hash is published, that of the first download is kept in
NAME.sha256, in the format of sha256sum.
"""

import itertools
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import filelock
import requests
import urllib3

from unweave.data.sets.card import Remote
from unweave.data.sets.reading import is_web_page
from unweave.errors import UserError, require
from unweave.files import explain_os_errors, hash_of, sync, write_text
from unweave.record import Display, Log, clock

TRIES = 5  # in a row, without a new byte
FIRST_WAIT = 1.0  # seconds before the second try; doubled before each further one
TIMEOUT = (10.0, 30.0)  # seconds: to connect, to wait for data
PIECE = 2**20
BUSY = (408, 425, 429, 500, 502, 503, 504)  # status codes of temporary errors
REMEDY = "Free space or choose another --to; the same command resumes from there."


class _Refused(Exception):
    """An address that does not have the file: trying again does not help."""


class _Cut(Exception):
    """A transfer that ended too early or did not start: it can be resumed."""


def download(remote: Remote, folder: Path, log: Log) -> Path:
    """The path of `remote` in `folder`, downloaded unless it exists.

    Resumes an interrupted download. Raises `UserError` if the file cannot be downloaded, its size or hash differs from
    the published one, or the disk has too little space; after Ctrl-C KeyboardInterrupt with a text on how to resume.
    """
    path, part = folder / remote.name, folder / f"{remote.name}.part"
    with explain_os_errors(folder, "Choose another --to."):
        folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder / f".{remote.name}.lock", path):
        if path.exists():
            check(remote, path, log)
            return path
        log(f"{remote.name}: {remote.expected}, into {folder}")
        try:
            stated = _from_any(remote, part, log)
            digest = _compare(part, remote.digest or stated, log)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{part} has {_size(part):,} bytes: the same command resumes from there") from None
        with explain_os_errors(path, REMEDY):
            sync(part)
            part.replace(path)
        if not remote.digest:
            write_text(_record(path), f"{digest.removeprefix('sha256:')}  {path.name}\n")
            log(f"{path.name} has no published hash: recorded {digest} in {_record(path)}")
    return path


def check(remote: Remote, path: Path, log: Log) -> None:
    """Logs that a file is the published one, or the one that was downloaded first. Raises `UserError` if it is not."""
    remedy = "move it away, then the same command downloads it again"
    size, record = path.stat().st_size, _record(path)
    same = remote.size in (None, size)
    require(same, f"{path} has {size:,} bytes, the published file {remote.size or 0:,}: {remedy}")
    digest = remote.digest or (f"sha256:{record.read_text().split()[0]}" if record.is_file() else "")
    if not digest:
        log(f"{path} exists ({size:,} bytes); there is no published hash to compare it with")
        return
    actual = _hash(path, digest)
    require(actual == digest, f"{path} is not the published file: it has {actual}, should be {digest}: {remedy}")
    log(f"{path} exists and is intact ({digest})")


def _from_any(remote: Remote, part: Path, log: Log) -> str:
    """Downloads `part` from the first address that has the file; returns the hash that the server states, or ""."""
    reasons = []
    with _Session() as session:
        for url in remote.urls:
            if _size(part) == remote.size:
                return ""  # it is complete: the hash decides
            try:
                return _from_one(session, remote, url, part, log)
            except _Refused as reason:
                reasons.append(f"{url}: {reason}")
            if url != remote.urls[-1]:
                log(f"{reasons[-1]}; trying the next address")
    kept = f". {part} has {_size(part):,} bytes: the same command resumes from there" if part.exists() else ""
    raise UserError(f"{remote.name} cannot be downloaded from {'; '.join(reasons)}{kept}")


def _from_one(session: requests.Session, remote: Remote, url: str, part: Path, log: Log) -> str:
    tries, most, wait = 0, _size(part), FIRST_WAIT
    while True:
        try:
            return _resume(session, remote, url, part, log)
        except (_Cut, requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            reason = _reason(error)
        except requests.RequestException as error:
            raise _Refused(str(error).splitlines()[0]) from None
        if _size(part) > most:
            tries, most, wait = 0, _size(part), FIRST_WAIT
        tries += 1
        if tries == TRIES:
            raise _Refused(f"{reason}, {TRIES} times in a row")
        log(f"{url}: {reason}; {_size(part):,} bytes so far, trying again in {clock(wait)}")
        time.sleep(wait)
        wait *= 2


def _resume(session: requests.Session, remote: Remote, url: str, part: Path, log: Log) -> str:
    """One request for the missing rest of `part`."""
    start = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        stated = _stated([*response.history, response])
        first, total = _extent(response)

        # an answer that is no data
        if response.status_code == 416:  # nothing follows the bytes that we have
            if total == start:
                return stated
            part.unlink()
            raise _Cut("it has less than was downloaded, starting over")
        if response.status_code in BUSY:
            raise _Cut(f"answers {response.status_code} {response.reason}")
        if response.status_code not in (200, 206):
            raise _Refused(f"answers {response.status_code} {response.reason}")

        # an answer with other bytes than requested
        if start and first != start:
            log(f"{url} cannot resume a download: starting over")
            start = 0
            if first != 0:
                part.unlink()
                raise _Cut("sends other bytes than requested")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise _Refused(_about_page(response.raw.read(PIECE, decode_content=False)))
        if remote.size and total and total != remote.size:
            raise _Refused(f"has {total:,} bytes, the published file {remote.size:,}")

        # write it if there is space
        total = remote.size or total
        free = shutil.disk_usage(part.parent).free
        need = (total or 0) - start
        require(need <= free, f"{part.parent} has {free:,} bytes free, {remote.name} needs {need:,} more. {REMEDY}")
        with explain_os_errors(part, REMEDY):
            _write(response, part, start, total, remote.name)
    return stated


def _write(response: requests.Response, part: Path, start: int, total: int | None, name: str) -> None:
    done, pieces = start, response.raw.stream(PIECE, decode_content=False)  # not decoded, so that a .gz stays one
    opening = next(pieces, b"")
    if start == 0 and is_web_page(opening):
        raise _Refused(_about_page(opening))
    with (
        part.open("ab" if start else "wb") as file,
        Display(f"downloading {name}", (total or 0) // 10**6, "MB", quiet=total is None) as display,
    ):
        for piece in itertools.chain([opening], pieces):
            file.write(piece)
            done += len(piece)
            display.update(done // 10**6)
    if total is not None and done < total:
        raise _Cut(f"ended after {done:,} of {total:,} bytes")
    if total is not None and done > total:
        part.unlink()
        raise _Refused(f"sent {done:,} bytes, the published file has {total:,}")


def _extent(response: requests.Response) -> tuple[int, int | None]:
    """The position in the file at which an answer begins, and the size of the file if it is stated."""
    extent = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code in (206, 416) and extent:
        return int(extent[1] or 0), None if extent[2] == "*" else int(extent[2])
    length = response.headers.get("Content-Length", "")
    return (0 if response.status_code == 200 else -1), int(length) if length.isdigit() else None


def _stated(responses: Sequence[requests.Response]) -> str:
    """The SHA-256 that Hugging Face states before it redirects to a file, or ""."""
    for response in responses:
        tag = response.headers.get("X-Linked-Etag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            return f"sha256:{tag}"
    return ""


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target and urlsplit(resp.url).scheme == "https" != urlsplit(urljoin(resp.url, target)).scheme:
            raise _Refused(f"redirects to {target}, which is not encrypted")
        return target


def _about_page(start: bytes) -> str:
    title = re.search(rb"<title[^>]*>\s*(.*?)\s*</title>", start, re.IGNORECASE | re.DOTALL)
    quoted = f" ({title[1].decode(errors='replace')[:80]})" if title else ""
    return f"answers with a web page{quoted} in place of the file"


def _reason(error: Exception) -> str:
    if isinstance(error, _Cut):
        return str(error)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer"
    return "the connection was cut" if isinstance(error, urllib3.exceptions.HTTPError) else "cannot be reached"


def _compare(part: Path, digest: str, log: Log) -> str:
    """The hash of the downloaded file. Removes the file and raises `UserError` if it is not the expected one."""
    log(f"{part.name}: comparing {digest}" if digest else f"{part.name}: computing its hash")
    actual = _hash(part, digest or "sha256:")
    if digest and actual != digest:
        part.unlink()
        raise UserError(
            f"{part.name} has {actual}, should be {digest}: damaged in transfer, or another file by now. It was "
            f"removed; the same command downloads it again"
        )
    return actual


def _hash(path: Path, like: str) -> str:
    algorithm = like.partition(":")[0]
    with Display(f"hashing {path.name}", _size(path), "bytes") as display:
        return f"{algorithm}:{hash_of(path, algorithm, display.update)}"


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _only_one(lock: Path, path: Path) -> filelock.AcquireReturnProxy:
    try:
        return filelock.FileLock(lock).acquire(timeout=0.2)
    except filelock.Timeout:
        raise UserError(f"another process is downloading {path}: wait for it") from None
    except OSError as error:
        raise UserError(f"cannot write {path.parent}: {error.strerror}") from None
