"""Put the pictures of a named protocol into a folder, from the archive as it is published, with a list of names and hashes.

    python scripts/build_protocol.py lfw_test lfw.tar datasets/lfw_test --people peopleDevTest.txt

The name is that of a file of options/protocols/, which says where the pictures are published.  The archive is a .zip, a .tar
or a folder.  It can be stopped and started again.  A test data set of the output says `protocol: lfw_test`; results name it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from facerestore.data.convert import open_source
from facerestore.data.protocols import MANIFEST, build, named_protocol
from facerestore.errors import DataError
from scripts.common import Parser, run


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("build_protocol.py", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the protocol: lfw_test")
    parser.add_argument("archive", help="folder, .zip or .tar as published")
    parser.add_argument("output", help="a new folder, or one of an earlier call")
    parser.add_argument("--people", help="file with a person's name at the start of each line, as LFW's peopleDevTest.txt")
    return parser.parse_args(argv)


def names_of_people(path: str) -> list[str]:
    """The first words of a list's lines, but for the number of them that LFW's lists begin with."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}, given as --people, cannot be read ({getattr(error, 'strerror', None) or error})") from None
    words = [line.split()[0] for line in lines if line.strip()]
    return words[1:] if words and words[0].isdigit() else words


def prepare(options: argparse.Namespace) -> None:
    protocol = named_protocol(options.name)
    people = names_of_people(options.people) if options.people else ()
    written = build(protocol, open_source(options.archive, "the archive"), options.output, people)
    print(f"{options.output}: {protocol.count} pictures of {protocol.name}, {written} written now, listed in {MANIFEST}")


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return run("build_protocol.py", lambda: prepare(options))


if __name__ == "__main__":
    sys.exit(main())
