"""Whether the hosts that a download comes from can be found at all."""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable


def check_hosts(urls: Iterable[str]):
    """Raises where the name of a host is not known here: without a network tensorflow-datasets tries for minutes.

    Behind a proxy nothing is asked, since it looks names up itself.

    Args:
        urls: what will be downloaded.

    Raises:
        OSError: for the first host that can't be found.
    """
    if urllib.request.getproxies():
        return
    for host in sorted({urllib.parse.urlsplit(url).hostname or "localhost" for url in urls}):
        try:
            socket.getaddrinfo(host, None)
        except socket.gaierror as error:
            raise OSError(
                f"{host} can't be found (no network?). Prepare the set where there is one, and bind data_dir to a copy "
                "of its tensorflow_datasets."
            ) from error
