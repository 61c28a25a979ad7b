"""lithops-mini storage: objects in and out of the configured storage."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import click

from lithops_mini.cli.files import files_below
from lithops_mini.cli.options import Selection, config_options
from lithops_mini.cli.table import count
from lithops_mini.destination import writing
from lithops_mini.errors import InputError, NoSuchBucket, NoSuchObject
from lithops_mini.shorten import printable
from lithops_mini.sizes import format_size

if TYPE_CHECKING:
    from lithops_mini.storage.api import Storage

_LARGE = 8 << 20  # bytes from which a transfer has a progress bar

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, for each object.")


@dataclass(frozen=True)
class Place:
    """``BUCKET/KEY`` or ``BUCKET/PREFIX/`` of the command line."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}"

    @property
    def is_directory(self) -> bool:
        """Whether it stands for what lies below it."""
        return self.key == "" or self.key.endswith("/")

    def below(self) -> Place:
        """The same place as a directory."""
        return self if self.is_directory else Place(self.bucket, f"{self.key}/")


def as_place(text: str) -> Place:
    """What ``BUCKET[/KEY]`` stands for."""
    bucket, _, key = text.partition("/")
    if not bucket:
        raise click.BadParameter(f"{text!r} does not begin with a bucket, as in BUCKET/KEY")
    return Place(bucket, key)


@click.group()
def storage() -> None:
    """Put, get, list and delete objects.

    \b
    Examples:
      lithops-mini storage put weather.csv my-bucket/raw/
      lithops-mini storage list my-bucket/raw/
      lithops-mini storage get my-bucket/raw/weather.csv - | head
      lithops-mini storage delete -r my-bucket/raw/
    """


@storage.command()
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@click.argument("target", metavar="BUCKET[/KEY]", type=as_place)
@click.option("-r", "--recursive", is_flag=True, help="Put what is in directories, with their structure.")
@click.option("--create-bucket", is_flag=True, help="Make the bucket if it does not exist.")
@json_option
@config_options
def put(
    sources: tuple[str, ...], target: Place, recursive: bool, create_bucket: bool, as_json: bool, selection: Selection
) -> None:
    """Store files as objects.

    A target that is a bucket or ends in "/" keeps the files' names. "-" is standard input. Of a directory, the files in
    it go below the target; links to directories are not followed, and what is no file (a named pipe, a socket) is
    skipped. Existing objects are replaced.

    \b
    Examples:
      lithops-mini storage put --create-bucket weather.csv flights.csv my-bucket
      lithops-mini storage put weather.csv my-bucket/raw/2013.csv
      lithops-mini storage put -r data my-bucket/raw/
      pg_dump sales | lithops-mini storage put - my-bucket/sales.sql
    """
    uploads = [upload for source in sources for upload in _uploads(source, target, recursive, alone=len(sources) == 1)]
    total = sum(os.path.getsize(path) for path, _ in uploads if path != "-")
    with open_storage(selection) as store, progress_bar(total) as progress:
        if create_bucket:
            store.create_bucket(target.bucket)
        else:
            try:
                store.head_bucket(target.bucket)
            except NoSuchBucket as error:
                raise NoSuchBucket(f"{error}; --create-bucket makes it") from error
        stored = 0
        for path, key in uploads:
            size = _store(store, path, target.bucket, key, progress)
            stored += size
            if as_json:
                _tell(target.bucket, key, size, path)
    if not as_json:
        where = Place(target.bucket, uploads[0][1]) if len(uploads) == 1 else target
        click.echo(f"Stored {count(len(uploads), 'object')}, {format_size(stored)}: {printable(str(where))}")


@storage.command()
@click.argument("source", metavar="BUCKET/KEY", type=as_place)
@click.argument("target", metavar="[PATH]", required=False, type=click.Path(allow_dash=True))
@click.option("-r", "--recursive", is_flag=True, help="Get everything below BUCKET/PREFIX/ into the directory PATH.")
@json_option
@config_options
def get(source: Place, target: str | None, recursive: bool, as_json: bool, selection: Selection) -> None:
    """Write objects to files.

    PATH is the working directory if it is not given; one that ends in "/" is a directory, made if it is missing; "-" is
    standard output. A file appears when it is complete. Existing files are replaced.

    \b
    Examples:
      lithops-mini storage get my-bucket/raw/weather.csv
      lithops-mini storage get my-bucket/raw/weather.csv - | head
      lithops-mini storage get -r my-bucket/raw/ data
    """
    if target == "-" and (as_json or recursive):
        raise click.UsageError(f"{'--json' if as_json else '-r'} needs a path: standard output is one object's own")
    if recursive:
        _get_below(source.below(), target or ".", as_json, selection)
        return
    if source.is_directory:
        raise click.UsageError(f"{source} is not one object; -r gets everything below it")
    with open_storage(selection) as store:
        if target == "-":
            with store.get_object(source.bucket, source.key, stream=True) as stream:
                shutil.copyfileobj(stream, sys.stdout.buffer)
            return
        size = store.head_object(source.bucket, source.key).size
        with writing(target or ".", "name another PATH"), progress_bar(size) as progress:
            path = store.download_file(source.bucket, source.key, target, progress=progress)
    if as_json:
        _tell(source.bucket, source.key, os.path.getsize(path), path)
    else:
        click.echo(f"Wrote {printable(path)}, {format_size(size)}")


@storage.command("list")
@click.argument("where", metavar="[BUCKET[/PREFIX]]", required=False, type=as_place)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, with exact sizes and times.")
@config_options
def list_(where: Place | None, as_json: bool, selection: Selection) -> None:
    """List the objects whose keys begin with PREFIX.

    BUCKET is the profile's storage_bucket if it is not given.

    \b
    Examples:
      lithops-mini storage list
      lithops-mini storage list my-bucket/raw/2013
      lithops-mini storage list my-bucket --json | jq .size
    """
    with open_storage(selection) as store:
        bucket, prefix = (where.bucket, where.key) if where else (store.bucket, "")
        number = total = 0
        for info in store.list_objects(bucket, prefix):
            number, total = number + 1, total + info.size
            if as_json:
                row = {"key": info.key, "size": info.size, "etag": info.etag, "modified": info.modified}
                click.echo(json.dumps({"bucket": bucket, **row}))
            else:
                modified = datetime.fromtimestamp(info.modified).isoformat(sep=" ", timespec="seconds")
                click.echo(f"{format_size(info.size):>10}  {modified}  {printable(info.key)}")
    if not as_json:
        click.echo(f"{count(number, 'object')}, {format_size(total)}", err=True)


@storage.command()
@click.argument("places", metavar="BUCKET/KEY...", nargs=-1, required=True, type=as_place)
@click.option("-r", "--recursive", is_flag=True, help="Delete everything below BUCKET/PREFIX/.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before deleting with -r.")
@json_option
@config_options
def delete(places: tuple[Place, ...], recursive: bool, yes: bool, as_json: bool, selection: Selection) -> None:
    """Delete objects.

    With -r asks first, with the number of objects and their size.

    \b
    Examples:
      lithops-mini storage delete my-bucket/raw/weather.csv
      lithops-mini storage delete -r my-bucket/raw/
      lithops-mini storage delete -r -y my-bucket
    """
    if not recursive and (directory := next((place for place in places if place.is_directory), None)):
        raise click.UsageError(f"{directory} is not one object; -r deletes everything below it")
    if recursive and not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: add --yes to delete with -r")
    with open_storage(selection) as store:
        found = {place: _found(store, place, recursive) for place in places}
        keys = sum(len(sizes) for sizes in found.values())
        total = sum(sum(sizes.values()) for sizes in found.values())
        names = ", ".join(printable(str(place.below() if recursive else place)) for place in places)
        if (
            recursive
            and not yes
            and not click.confirm(f"Delete {count(keys, 'object')}, {format_size(total)}: {names}?", err=True)
        ):
            click.echo("Nothing was deleted.", err=as_json)
            click.get_current_context().exit(1)
        for place, sizes in found.items():
            store.delete_objects(place.bucket, sizes)
            if as_json:
                for key, size in sizes.items():
                    _tell(place.bucket, key, size)
    if not as_json:
        click.echo(f"Deleted {count(keys, 'object')}, {format_size(total)}: {names}")


@contextmanager
def open_storage(selection: Selection) -> Iterator[Storage]:
    """The configured storage, closed at the end of the ``with`` block."""
    from lithops_mini import registry
    from lithops_mini.storage.api import Storage

    config = selection.load()
    backend = registry.find("storage", config.storage)(config.storage_options)
    with Storage(backend, config.job.storage_bucket) as store:
        yield store


def _uploads(source: str, target: Place, recursive: bool, *, alone: bool) -> Iterator[tuple[str, str]]:
    """The files of one source, each with its key."""
    if os.path.isdir(source):
        if not recursive:
            raise click.UsageError(f"{source} is a directory; -r puts what is in it")
        for path, relative in files_below(source):
            yield path, target.below().key + relative
    elif not target.is_directory and alone:
        yield source, target.key
    elif source == "-":
        raise click.UsageError("standard input has no name: give the object's whole key, as BUCKET/KEY")
    elif not target.is_directory:
        raise click.UsageError(f"several files need a bucket or a prefix that ends in '/', not {target}")
    else:
        yield source, target.key + os.path.basename(source)


def _store(store: Storage, path: str, bucket: str, key: str, progress: Callable[[int], object] | None) -> int:
    """Store a file, or standard input for "-", and return how many bytes came: of a pipe nobody knows before."""
    if path == "-":
        with store.open(bucket, key, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
            return file.tell()
    size = 0

    def moved(count: int) -> None:
        nonlocal size
        size += count
        if progress is not None:
            progress(count)

    store.upload_file(path, bucket, key, progress=moved)
    return size


def _tell(bucket: str, key: str, size: int, path: str | None = None) -> None:
    """Print a line of JSON about an object, and the file it came from or went to."""
    file = {} if path is None else {"file": path}
    click.echo(json.dumps({"bucket": bucket, "key": key, "size": size} | file))


def _get_below(source: Place, directory: str, as_json: bool, selection: Selection) -> None:
    with open_storage(selection) as store:
        # an empty object that ends in "/" is how consoles of object stores show a directory
        infos = [i for i in store.list_objects(source.bucket, source.key) if i.size or not i.key.endswith("/")]
        if not infos:
            raise NoSuchObject(f"there is no object below {source}")
        paths = {info.key: path_below(directory, info.key.removeprefix(source.key)) for info in infos}
        total = sum(info.size for info in infos)
        with writing(directory, "name another PATH"), progress_bar(total) as progress:
            for key, path in paths.items():
                store.download_file(source.bucket, key, path, progress=progress)
                if as_json:
                    _tell(source.bucket, key, os.path.getsize(path), path)
    if not as_json:
        click.echo(f"Wrote {count(len(infos), 'file')}, {format_size(total)}: {printable(directory)}")


def path_below(directory: str, relative: str) -> str:
    """The path of a key's end below a directory; ``InputError`` if it would not lie there."""
    parts = relative.split("/")
    if any(part in ("", ".", "..") or os.sep in part or "\0" in part for part in parts):
        raise InputError(f"the key's end {relative!r} is not a path below {directory}; get this object by itself")
    return os.path.join(directory, *parts)


def _found(store: Storage, place: Place, recursive: bool) -> dict[str, int]:
    """The keys a place stands for, with their sizes in bytes; ``NoSuchObject`` if there are none."""
    if not recursive:
        return {place.key: store.head_object(place.bucket, place.key).size}
    found = {info.key: info.size for info in store.list_objects(place.bucket, place.below().key)}
    if not found:
        raise NoSuchObject(f"there is no object below {place.below()}")
    return found


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int], object] | None]:
    """A callback for a transfer that is large enough, on a terminal, to be watched."""
    if total < _LARGE or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, leave=False) as bar:
        yield bar.update


COMMANDS = [storage]
