"""Write the JSON schema of option files, with which an editor completes and checks them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from facerestore.config.json_schema import option_schema
from facerestore.files import atomic_write
from scripts.common import Parser, run

USE = """\
In VS Code, install the extension "YAML" (redhat.vscode-yaml), and either write as the first line of an option file

  # yaml-language-server: $schema=schema.json          (a path from the option file, or a URL)

or tell it once for all in .vscode/settings.json:

  "yaml.schemas": {"./options/schema.json": "options/**/*.yml"}

Every key is then completed, explained and checked while it is written.  Other editors that use yaml-language-server (Neovim,
Emacs, Sublime Text, JetBrains) understand the same line.  The schema is made of the code and not kept with it: run this
again when a component has come or changed.
"""


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, epilog=USE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("options/schema.json"), help="default: options/schema.json")
    given = parser.parse_args(argv)
    return run("option_schema.py", lambda: atomic_write(given.output, json.dumps(option_schema(), indent=1) + "\n"))


if __name__ == "__main__":
    sys.exit(main())
