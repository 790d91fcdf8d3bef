"""Run ``ragimpute`` as where some packages are not installed: what it prints, as JSON.

Usage: python without_packages.py HIDDEN COMMANDS, both JSON: names of packages, and lists of words.
The commands run one after another in this process, so that all of it starts once.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys


class Without:
    """A finder of modules that does not see packages of some names."""

    def __init__(self, finder, names):
        self._finder, self._names = finder, names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self._names:
            return None
        return self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)


def main():
    """Hide packages, run the commands, and print [[exit code, stdout, stderr], ...]."""
    hidden, commands = (json.loads(text) for text in sys.argv[1:])
    early = {name.split(".")[0] for name in sys.modules} & set(hidden)
    assert not early, f"imported already: {early}"
    sys.meta_path[:] = [Without(finder, set(hidden)) for finder in sys.meta_path]
    from ragimpute.cli import main as cli

    results = []
    for words in commands:
        logging.getLogger("ragimpute").handlers.clear()
        sys.argv = ["ragimpute", *words]
        out, err = io.StringIO(), io.StringIO()
        code = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as end:
                code = end.code or 0
        results.append([code, out.getvalue(), err.getvalue()])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
