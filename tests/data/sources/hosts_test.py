"""Hosts that can't be found are named at once, before tensorflow-datasets tries them for minutes."""

import socket

import pytest

from robgan_tf.data.sources.hosts import check_hosts
from robgan_tf.data.sources.tfds_images import tfds_images


@pytest.fixture
def no_network(monkeypatch):
    """No name but localhost is known, and there is no proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    known = socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if host != "localhost":
            raise socket.gaierror(-2, "Name or service not known")
        return known(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_a_host_that_is_not_known_is_named(no_network):
    check_hosts(["http://localhost/a.zip"])
    with pytest.raises(OSError, match=r"^data\.example can't be found \(no network\?\)"):
        check_hosts(["http://localhost/a.zip", "https://data.example/b.zip"])


def test_behind_a_proxy_nothing_is_asked(no_network, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://localhost:3128")
    check_hosts(["https://data.example/b.zip"])


def test_a_set_that_can_t_be_downloaded_is_one_line_at_once(no_network, tmp_path):
    message = r"'cifar10' could not be downloaded and prepared in .*: www\.cs\.toronto\.edu can't be found"
    with pytest.raises(ValueError, match=message):
        tfds_images("cifar10", data_dir=str(tmp_path / "mistyped"), download=True)
    assert not list(tmp_path.iterdir())
