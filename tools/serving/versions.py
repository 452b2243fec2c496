"""Writes config/models.config: which versions are served, and which of them the labels stable and canary name.

    python tools/serving/versions.py --stable=1 --canary=2 --export=runs/digits/export
    python tools/serving/versions.py --stable=1           # canary is the same version: no canary, or rolled back

The server moves a label only to a version that it has loaded. So a label that moves takes two calls: the first loads
the version (`--load=2`), and when the server says it is AVAILABLE, the second moves the label.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

CONFIG = """\
# What the model server serves, a tensorflow.serving.ModelServerConfig. Written by `versions.py`; see README.md.
model_config_list {{
  config {{
    name: "{model}"
    base_path: "{base_path}"
    model_platform: "tensorflow"
    model_version_policy {{
      specific {{
{versions}
      }}
    }}
    version_labels {{
      key: "stable"
      value: {stable}
    }}
    version_labels {{
      key: "canary"
      value: {canary}
    }}
  }}
}}
"""


def render(model: str, base_path: str, stable: int, canary: int, load=()) -> str:
    """The text of models.config."""
    versions = "\n".join(f"        versions: {version}" for version in sorted({stable, canary, *load}))
    return CONFIG.format(model=model, base_path=base_path, versions=versions, stable=stable, canary=canary)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stable", type=int, required=True, help="version of the label stable")
    parser.add_argument("--canary", type=int, help="version of the label canary; that of stable if not given")
    parser.add_argument("--load", type=int, action="append", default=[], help="another version to load; repeatable")
    parser.add_argument("--export", help="folder with the versions, to check that they are there")
    parser.add_argument("--model", default="robgan")
    parser.add_argument("--base_path", default="/models/robgan", help="that folder as the server sees it")
    parser.add_argument("--out", default=str(pathlib.Path(__file__).parent / "config" / "models.config"))
    flags = parser.parse_args(arguments)
    canary = flags.stable if flags.canary is None else flags.canary
    for version in sorted({flags.stable, canary, *flags.load}):
        if flags.export and not os.path.isfile(os.path.join(flags.export, str(version), "saved_model.pb")):
            print(f"error: there is no version {version} in {flags.export}", file=sys.stderr)
            return 2
    # Renamed, so that the server never reads half of it.
    partial = f"{flags.out}.partial"
    pathlib.Path(partial).write_text(render(flags.model, flags.base_path, flags.stable, canary, flags.load))
    os.replace(partial, flags.out)
    print(f"{flags.out}: stable is {flags.stable}, canary is {canary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
