"""Prints the TF_CONFIG of a worker: `export TF_CONFIG=$(python tools/distributed/tf_config.py --hosts=a,b --index=0)`.

Needs Python alone.
"""

from __future__ import annotations

import argparse
import json


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", required=True, help="names of all hosts, the chief's first, with commas between")
    parser.add_argument("--index", required=True, type=int, help="which of them this is, from 0")
    parser.add_argument("--port", type=int, default=2222, help="port for the workers' messages, free on every host")
    arguments = parser.parse_args()
    hosts = arguments.hosts.split(",")
    if not all(hosts) or not 0 <= arguments.index < len(hosts):
        parser.error(
            f"--hosts={arguments.hosts} has no entry {arguments.index}: the index is from 0 to {len(hosts) - 1}"
        )
    # A host that occurs more than once has several workers, each with a port of its own.
    workers = [f"{host}:{arguments.port + hosts[:index].count(host)}" for index, host in enumerate(hosts)]
    print(json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": arguments.index}}))


if __name__ == "__main__":
    main()
