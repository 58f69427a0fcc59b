"""Public addresses, in all the ways to write one that is not."""

import pytest

from lookalike_build.photos.public_address import is_public


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_a_host_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"],
        *["100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"],
        *["255.255.255.255", "192.88.99.1"],
        *["::1", "::", "fe80::1", "fe80::1%lo", "fc00::1", "fd00::1", "fec0::1", "ff02::1"],
        *["::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::ffff:169.254.169.254"],
        *["64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808", "2002:7f00:1::", "100::1"],
        *["2002:a00:1::1", "2001:0:a00:1::1", "2001:db8::1", "2001::1"],
    ],
)
def test_any_other_is_not(address: str) -> None:
    assert not is_public(address)
