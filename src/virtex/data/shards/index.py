"""`virtex index`: make the manifest of the shards in a store or folder.

Each shard's facts are one file, written when the shard has been read, so that a killed index goes
on with the others, and an unchanged shard is not read again. The rest of the manifest follows from
these files and the options.
"""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from virtex import files
from virtex.cores import num_cores
from virtex.data.checks import quoted
from virtex.data.shards.faults import CODES, KEPT
from virtex.data.shards.gather import Gathering, Selection, gather, write_manifests
from virtex.data.shards.index_changes import report_changes
from virtex.data.shards.index_folders import is_held_out_of, out_of, val_folder
from virtex.data.shards.index_keep import checked
from virtex.data.shards.index_options import IndexConfig, listed, opened
from virtex.data.shards.index_pool import pool_of
from virtex.data.shards.keep_list import KeepList
from virtex.data.shards.manifest import FAULTS, RECORDS, Manifest, Reading
from virtex.data.shards.records import SUFFIX
from virtex.data.shards.shard_facts import caption_keys_in, read_facts, write_facts
from virtex.data.shards.store import Store, Stored
from virtex.errors import DataError, listing
from virtex.processes import Requested
from virtex.progress import ProgressBar, tracked

log = logging.getLogger("virtex")

MAX_SAMPLED = 1_000_000
"""Most captions of the sample."""
DOWNLOADS = 3
"""Shards that are downloaded at once, beside one for each process."""


class _Place(NamedTuple):
    """What is indexed, and where to."""

    store: Store
    pattern: str
    """Names of numbered shards; empty for all of the store."""
    shards: Sequence[Stored]
    out: Path
    reading: Reading


class _Job(NamedTuple):
    """A shard to read."""

    shard: Stored
    facts: Path
    num_sampled: int


def index_shards(config: IndexConfig, *, processes: Requested = "auto") -> Path:
    """Write the manifest of all shards of a store or folder, and return its folder.

    Raises:
        ConfigError: The options cannot work.
        DataError: The store cannot be read, or there is nothing to train on.
    """
    num_processes = num_cores() if processes == "auto" else processes
    store, pattern = opened(config.root)
    out = out_of(config, store, pattern)
    shards = listed(store, pattern)
    with (
        _locked(out),
        files.temporary_folder(out) as scratch,
        pool_of(num_processes) as pool,
    ):
        selection = _selection(config, scratch)
        report_changes(out, store.root, shards, partial(facts_path, out))
        if config.overwrite:
            shutil.rmtree(out / RECORDS, ignore_errors=True)
        reading = Reading(config.with_captions, config.caption_keys)
        place = _Place(store, pattern, shards, out, reading)
        _read_shards(place, pool, num_processes, scratch)
        _remove_others(out / RECORDS, {f"{one.name}{SUFFIX}" for one in shards})
        _write(place, selection, pool)
    return out


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the manifest's lock; an error before anything is written leaves no new folder."""
    missing = [each for each in (out, *out.parents) if not each.exists()]
    lock = out / ".lock"
    with files.locked(lock, subject=f"the manifest {out}"):
        try:
            yield
        except BaseException:
            if not any(one != lock for one in out.iterdir()):
                lock.unlink(missing_ok=True)
                for each in missing:
                    with contextlib.suppress(OSError):  # another process writes there
                        each.rmdir()
            raise


def facts_path(out: Path, shard: str) -> Path:
    """Return the file of a shard's facts in a manifest's folder."""
    return out / RECORDS / f"{shard}{SUFFIX}"


def sample_shares(shards: Sequence[Stored]) -> list[int]:
    """Return the most captions that each shard gives to the sample, by its part of all bytes."""
    total = max(1, sum(one.size for one in shards))
    return [max(1, MAX_SAMPLED * one.size // total) for one in shards]


def _jobs(place: _Place) -> list[_Job]:
    """Return the shards whose facts are missing or outdated."""
    jobs = []
    for one, share in zip(place.shards, sample_shares(place.shards), strict=True):
        path = facts_path(place.out, one.name)
        found = read_facts(path, stamp=one.stamp, reading=place.reading, num_sampled=share)
        if found is None or (found.broken and place.store.folder is not None):
            # A power of two, so that a few shards more or less change nothing.
            jobs.append(_Job(one, path, 1 << (share - 1).bit_length()))
    return jobs


def _selection(config: IndexConfig, scratch: Path) -> Selection:
    """Return which examples are kept; Raises: ConfigError if the list of ids cannot be used."""
    keep = None
    if config.keep is not None:
        keep = KeepList.prepare(config.keep, scratch / "keep.npy")
    return Selection(keep, config.val_share, config.seed)


def _read_shards(place: _Place, pool: Executor | None, num_processes: int, scratch: Path) -> None:
    """Read the shards that need it, and write their facts."""
    jobs = _jobs(place)
    num_known = len(place.shards) - len(jobs)
    if num_known:
        log.info("%d of %d shards are unchanged", num_known, len(place.shards))
    if not jobs:
        return
    is_local = place.store.folder is not None
    num_threads = num_processes if is_local else num_processes + DOWNLOADS
    total = sum(job.shard.size for job in jobs)
    with ProgressBar("indexing", total, unit="bytes") as bar:

        def read(job: _Job) -> None:
            if is_local:
                _read_local(place, job, pool)
                bar.advance(job.shard.size)
            else:
                _read_remote(place, job, pool, scratch, bar.advance)

        _run_all(
            read, jobs, num_threads, lambda done: bar.note(f"{done:,} of {len(jobs):,} shards")
        )


def _run_all(
    read: Callable[[_Job], None],
    jobs: Sequence[_Job],
    num_threads: int,
    on_done: Callable[[int], None],
) -> None:
    """Do all jobs in threads; after an error, those that have begun alone."""
    threads = ThreadPoolExecutor(num_threads)
    try:
        futures: list[Future[None]] = [threads.submit(read, job) for job in jobs]
        for done, future in enumerate(futures, start=1):
            future.result()
            on_done(done)
    except BrokenProcessPool as error:
        raise DataError(
            "a process that read shards was killed, perhaps for want of memory. Give fewer "
            "--processes; the same command goes on with the shards that are missing."
        ) from error
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def _read_local(place: _Place, job: _Job, pool: Executor | None) -> None:
    assert place.store.folder is not None
    _facts_of(place, job, place.store.folder / job.shard.name, None, pool)


def _read_remote(
    place: _Place,
    job: _Job,
    pool: Executor | None,
    scratch: Path,
    on_bytes: Callable[[int], object],
) -> None:
    """Download a shard, hash it meanwhile, read it and remove it."""
    one = job.shard
    descriptor, name = tempfile.mkstemp(dir=scratch)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            sha256 = place.store.download(
                one.name, file, size=one.size, etag=one.etag, on_bytes=on_bytes
            )
        _facts_of(place, job, path, sha256, pool)
    finally:
        path.unlink(missing_ok=True)


def _facts_of(
    place: _Place, job: _Job, path: Path, sha256: str | None, pool: Executor | None
) -> None:
    arguments = {
        "name": job.shard.name,
        "stamp": job.shard.stamp,
        "sha256": sha256,
        "reading": place.reading,
        "num_sampled": job.num_sampled,
    }
    if pool is None:
        write_facts(path, job.facts, **arguments)  # type: ignore[arg-type]
    else:
        pool.submit(write_facts, path, job.facts, **arguments).result()  # type: ignore[arg-type]


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove the facts of shards that are no longer there."""
    for path in folder.rglob(f"*{SUFFIX}"):
        if str(path.relative_to(folder)) not in names:
            path.unlink(missing_ok=True)


def _write(place: _Place, selection: Selection, pool: Executor | None) -> None:
    """Write the manifests from the facts of all shards, and say what is in them."""
    tasks = _gatherings(place, selection)
    gathered = map(gather, tasks) if pool is None else pool.map(gather, tasks, chunksize=4)
    if selection.keep is not None:
        facts_of = partial(facts_path, place.out)
        gathered = checked(gathered, selection.keep, place.store.root, facts_of)
    manifest, val = write_manifests(
        place.out,
        place.store.root,
        tracked(gathered, "writing the manifest", len(tasks), unit="shards"),
        pattern=place.pattern,
        reading=place.reading,
        has_val=bool(selection.val_share),
        is_local=place.store.folder is not None,
    )
    beside = val_folder(place.out)
    if not selection.val_share and is_held_out_of(beside, place.out):
        log.warning("%s is of an earlier index: its examples are in %s too", beside, place.out)
    _report(manifest, place, weight=sum(each.facts.stat().st_size for each in tasks))
    if val is not None:
        log.info("%s examples held out for validation, in %s", f"{val.num_all_kept:,}", beside)
    _check_kept(manifest, place, selection)


def _gatherings(place: _Place, selection: Selection) -> list[Gathering]:
    """Return what is to be gathered of each shard."""
    shares = sample_shares(place.shards)
    return [
        Gathering(
            facts_path(place.out, one.name), one, one.stamp, share, selection, place.reading
        )
        for one, share in zip(place.shards, shares, strict=True)
    ]  # fmt: skip


def _check_kept(manifest: Manifest, place: _Place, selection: Selection) -> None:
    """Raise DataError if no example is kept; says why."""
    if manifest.num_all_kept:
        return
    is_faulty = sum(manifest.fault_counts.values()) == manifest.num_examples.sum()
    reason = f"{place.out / FAULTS} says why"
    other_keys = _other_keys(place) if is_faulty else ""
    if not is_faulty and selection.keep is not None:
        reason = f"--keep lists faulty ones alone; {reason}"
    elif not is_faulty:
        reason = "--val_share holds out all"
    raise DataError(f"no example at {place.store.root} is kept: {reason}.{other_keys}")


def _report(manifest: Manifest, place: _Place, *, weight: int) -> None:
    """Say what is in a manifest."""
    total = int(manifest.num_examples.sum())
    log.info(
        "%d shards, %s examples, %s kept; the records weigh %.1f MB, %.0f bytes an example",
        len(manifest), f"{total:,}", f"{manifest.num_all_kept:,}", weight / 1e6,
        weight / max(total, 1),
    )  # fmt: skip
    for reason, count in manifest.fault_counts.items():
        what = "kept without these" if CODES.get(reason) in KEPT else "left out"
        log.info("%s: %s examples, %s", what, f"{count:,}", reason)
    if manifest.left_out:
        broken = [f"{quoted(one.name)}: {quoted(one.reason)}" for one in manifest.left_out]
        log.warning("left out %d broken shards: %s", len(broken), listing(broken))


def _other_keys(place: _Place) -> str:
    """Return which caption keys there are, if shards have none of those that were read."""
    paths = (facts_path(place.out, one.name) for one in place.shards)
    keys = dict.fromkeys(key for path in islice(paths, 10) for key in caption_keys_in(path))
    if not keys:
        return ""
    read = " and ".join(map(quoted, place.reading.caption_keys)) or 'a .txt file or "caption"'
    return (
        f" There are no captions of {read}; keys with text are "
        f"{listing(map(quoted, keys), limit=12)}: name some with --caption_keys."
    )
