"""Named protocols: which pictures a method is measured on, so that figures of one name can be compared.

A protocol is a file of `options/protocols/`.  `scripts/build_protocol.py` puts its pictures into a folder, with a list of their
names and hashes; a test data set that says `protocol: NAME` is held against both.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import yaml
from tqdm import tqdm

from facerestore.data.image_io import picture_size
from facerestore.data.names import natural
from facerestore.data.storage import Folder, Storage
from facerestore.errors import DataError, OptionError, first_line, listed, nearest
from facerestore.files import atomic_write, remove_unfinished

FOLDER = Path(__file__).resolve().parents[2] / "options" / "protocols"
MANIFEST = "protocol.json"
BUILDER = "scripts/build_protocol.py"


class NamedProtocol(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of `options/protocols/`.

    Args:
        name: what options and results call it
        count: how many pictures there are
        truth: whether they have one
        pick: all pictures of the archive, or the first of each person (a folder each, as in lfw.tgz)
        pictures: which ones
        published: where they can be had
        reference: what they are measured against
        measures: the networks and colours of each metric
        uncertain: what could not be found out
    """

    name: str
    count: int
    truth: bool
    pick: Literal["all", "first_of_each_person"]
    pictures: str
    published: str
    reference: str
    measures: dict[str, str]
    uncertain: list[str]


def named_protocol(name: str) -> NamedProtocol:
    """The protocol of that name.

    Raises:
        OptionError: there is none, or its file is not one
    """
    known = sorted(path.stem for path in FOLDER.glob("*.yml"))
    if name not in known:
        raise OptionError(f"there is no protocol {name!r}{nearest(name, known)}: {FOLDER} has {listed(known) or 'none'}")
    try:
        return msgspec.convert(yaml.safe_load((FOLDER / f"{name}.yml").read_text()), NamedProtocol)
    except (msgspec.ValidationError, yaml.YAMLError) as error:
        raise OptionError(f"{FOLDER / name}.yml is no protocol: {first_line(error)}") from None


def refuse_other_pictures(protocol: NamedProtocol, names: Sequence[str], root: str | None) -> None:
    """DataError where a data set has another number of pictures, or others than the list that lies in `root`, whose files are
    read for it."""
    if len(names) != protocol.count:
        raise DataError(
            f"protocol {protocol.name} has {protocol.count} pictures and the data set {len(names)}: "
            f"leave `protocol` out, or get them all ({protocol.published}; {BUILDER})"
        )
    listing = Path(root or "") / MANIFEST
    if root and listing.is_file():
        _refuse_other_files(_read_listing(listing), protocol, names, listing)


class Listing(msgspec.Struct, frozen=True):
    """What `protocol.json` says.

    Args:
        protocol: the name of the protocol
        pictures: name -> SHA-256 of its file
    """

    protocol: str
    pictures: dict[str, str]


def _read_listing(path: Path) -> Listing:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Listing)
    except (msgspec.DecodeError, OSError) as error:
        raise DataError(f"{path} is no list of pictures ({first_line(error)}): build it anew by {BUILDER}") from None


def _refuse_other_files(listing: Listing, protocol: NamedProtocol, names: Sequence[str], path: Path) -> None:
    """DataError where the pictures beside a list are not those of it, by their names or by their content."""
    if listing.protocol != protocol.name or set(listing.pictures) != set(names):
        raise DataError(f"{path} lists other pictures than those of protocol {protocol.name}: build it anew by {BUILDER}")
    folder = Folder(str(path.parent), MANIFEST)
    changed = [name for name in names if hashlib.sha256(folder.read(name)).hexdigest() != listing.pictures[name]]
    if changed:
        raise DataError(
            f"{len(changed)} of {len(names)} pictures of {path.parent} are not those that {path.name} lists "
            f"({listed(changed, 3)}): build it anew by {BUILDER}"
        )


def build(protocol: NamedProtocol, source: Storage, output: str, people: Iterable[str] = ()) -> int:
    """Copy the protocol's pictures from an archive into a folder, as they are, and list them in protocol.json.

    What an earlier call has written is kept where it is the same.

    Args:
        protocol: which
        source: the archive
        output: the folder
        people: names of the persons, where the archive holds more of them

    Returns:
        how many pictures were written now

    Raises:
        DataError: the archive does not hold them, or the folder holds others
    """
    chosen = select(protocol, source.names(), people)
    root, written, hashes = Path(output), 0, {}
    remove_unfinished(root)
    files = {posixpath.basename(name): posixpath.basename(source.path(name)) for name in chosen}
    if len(files) != len(chosen):
        raise DataError(f"the archive holds two pictures of one name in different folders: this is not {protocol.name}")
    foreign = {path.name for path in root.glob("*")} - {*files.values(), MANIFEST} if root.is_dir() else set()
    if foreign:
        raise DataError(
            f"{output} holds files that are not of {protocol.name} ({listed(sorted(foreign), 3)}): choose another output"
        )
    for name in tqdm(chosen, unit="picture"):
        data, path = source.read(name), root / files[posixpath.basename(name)]
        picture_size(data, source.path(name))  # refuses what is none
        if not (path.is_file() and path.read_bytes() == data):
            atomic_write(path, data, durable=False)
            written += 1
        hashes[posixpath.basename(name)] = hashlib.sha256(data).hexdigest()
    atomic_write(root / MANIFEST, json.dumps({"protocol": protocol.name, "pictures": hashes}, indent=1))
    return written


def select(protocol: NamedProtocol, names: Sequence[str], people: Iterable[str] = ()) -> list[str]:
    """The protocol's pictures among those of an archive; DataError where they are not there."""
    wanted, chosen, found = set(people), list(names), f"the archive {len(names)}"
    if wanted and protocol.pick == "all":
        raise DataError(f"{protocol.name} has all pictures of its archive, whoever they show: leave --people out")
    if wanted or (protocol.pick == "first_of_each_person" and len(names) != protocol.count):
        first: dict[str, str] = {}
        for name in sorted(names, key=natural):
            first.setdefault(posixpath.basename(posixpath.dirname(name)), name)
        if lacking := sorted(wanted - set(first)):
            raise DataError(f"the archive has no folder of {listed(lacking, 3)}: it is not the one that {protocol.name} is of")
        chosen = [name for person, name in first.items() if not wanted or person in wanted]
        whole = f"the archive {len(chosen)} persons ({len(names)} pictures)"
        found = f"--people names {len(chosen)} persons" if wanted else whole
    if len(chosen) != protocol.count:
        many = len(chosen) > protocol.count and not (wanted or protocol.pick == "all")
        hint = " (of all persons: name the list of those that are tested by --people)" if many else ""
        raise DataError(
            f"{protocol.name} has {protocol.count} pictures and {found}{hint}: it is published at {protocol.published}"
        )
    return chosen
