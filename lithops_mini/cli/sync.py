"""lithops-mini storage sync: a directory and what lies below a prefix made equal, moving only what differs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from lithops_mini.cli.files import files_below
from lithops_mini.cli.options import Selection, config_options
from lithops_mini.cli.storage import Place, as_place, open_storage, path_below, progress_bar, storage
from lithops_mini.cli.table import count
from lithops_mini.errors import InputError, NoSuchBucket
from lithops_mini.shorten import printable
from lithops_mini.sizes import format_size

if TYPE_CHECKING:
    from lithops_mini.storage.api import Storage

_THREADS = 8  # transfers at once


@dataclass(frozen=True)
class Entry:
    """A file or an object, under its path below the directory or the prefix."""

    size: int  # bytes
    modified: int  # milliseconds since the epoch: files and services round what is finer in their own ways


@storage.command()
@click.argument("source")
@click.argument("target")
@click.option("--down", is_flag=True, help="From BUCKET/PREFIX to DIRECTORY, instead of the other way.")
@click.option("--delete", is_flag=True, help="Delete at the target what the source does not have.")
@click.option("-n", "--dry-run", is_flag=True, help="Only tell what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, each a copy or a deletion.")
@config_options
def sync(
    source: str, target: str, down: bool, delete: bool, dry_run: bool, as_json: bool, selection: Selection
) -> None:
    """Copy what is new or changed in DIRECTORY to BUCKET/PREFIX, or with --down the other way.

    What has the same size, and is not newer at the source, is taken as the same; a file that was copied down has the
    object's time. Links to directories are not followed.

    \b
    Examples:
      lithops-mini storage sync data my-bucket/raw
      lithops-mini storage sync --down my-bucket/raw data
      lithops-mini storage sync --delete --dry-run data my-bucket/raw
    """
    directory, where = (target, as_place(source)) if down else (source, as_place(target))
    where = where.below() if where.key else where
    if not down and not os.path.isdir(directory):
        raise click.UsageError(f"{directory} is not a directory")
    with open_storage(selection) as store:
        files, objects = dict(_files(directory)), _objects(store, where, needed=down)
        theirs, ours = (objects, files) if down else (files, objects)
        changed = [name for name, entry in theirs.items() if _differs(entry, ours.get(name))]
        surplus = [name for name in ours if name not in theirs] if delete else []
        for name in changed:
            path_below(directory, name)  # all are checked before any is copied
        if not dry_run:
            with progress_bar(sum(theirs[name].size for name in changed)) as progress:
                copy = partial(_download if down else _upload, store, where, directory, progress)
                _each({name: theirs[name] for name in changed}, copy)
            if down:
                for name in surplus:
                    os.unlink(os.path.join(directory, *name.split("/")))
            elif surplus:
                store.delete_objects(where.bucket, [where.key + name for name in surplus])
    actions = [("copy", name, theirs[name].size) for name in changed]
    actions += [("delete", name, ours[name].size) for name in surplus]
    for action, name, size in actions:
        if as_json:
            click.echo(json.dumps({"action": action, "name": name, "size": size, "done": not dry_run}))
        elif dry_run:
            click.echo(f"{action:6} {format_size(size):>10}  {printable(name)}")
    if not as_json:
        copied = format_size(sum(theirs[name].size for name in changed))
        would, deleted = ("Would copy", "delete") if dry_run else ("Copied", "deleted")
        more = f"; {deleted} {count(len(surplus), 'surplus one')}" if delete else ""
        click.echo(f"{would} {len(changed):,} of {count(len(theirs), 'file')}, {copied}{more}")


def _differs(source: Entry, target: Entry | None) -> bool:
    return target is None or source.size != target.size or source.modified > target.modified


def _files(directory: str) -> Iterator[tuple[str, Entry]]:
    if not os.path.lexists(directory):  # download makes it
        return
    for path, relative in files_below(directory):
        status = os.stat(path)
        yield relative, Entry(status.st_size, status.st_mtime_ns // 1_000_000)


def _objects(store: Storage, where: Place, *, needed: bool) -> dict[str, Entry]:
    try:
        infos = list(store.list_objects(where.bucket, where.key))
    except NoSuchBucket as error:
        if needed:
            raise
        raise NoSuchBucket(f"{error}; lithops-mini storage put --create-bucket makes it") from error
    # an empty object that ends in "/" is how consoles of object stores show a directory
    kept = (info for info in infos if info.size or not info.key.endswith("/"))
    return {info.key.removeprefix(where.key): Entry(info.size, round(info.modified * 1000)) for info in kept}


def _upload(
    store: Storage, where: Place, directory: str, progress: Callable[[int], object] | None, name: str, _: Entry
) -> None:
    store.upload_file(os.path.join(directory, *name.split("/")), where.bucket, where.key + name, progress=progress)


def _download(
    store: Storage, where: Place, directory: str, progress: Callable[[int], object] | None, name: str, found: Entry
) -> None:
    path = path_below(directory, name)
    if os.path.isdir(path):
        raise InputError(f"{path} is a directory, and {where}{name} an object: move one of them")
    store.download_file(where.bucket, where.key + name, path, progress=progress)
    # The time that was listed: if the object was replaced since, it is newer than the file, and comes again.
    os.utime(path, ns=(time.time_ns(), found.modified * 1_000_000))


def _each(entries: dict[str, Entry], copy: Callable[[str, Entry], None]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for future in [pool.submit(copy, name, entry) for name, entry in entries.items()]:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
