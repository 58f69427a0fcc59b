"""Public addresses: connections to no other, whatever a name resolves to or a server redirects to."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

_UNICAST = IPv6Network("2000::/3")
# IPv6 addresses that end in an IPv4 address, to which they lead.
_TRANSLATED = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
# Globally reachable by the registry, but no host: 6to4 relays.
_RELAYS = IPv4Network("192.88.99.0/24")


class PrivateAddressError(OSError):
    """A connection to an address that is not public was refused here."""


def public_socket(address_info: tuple[Any, ...]) -> socket.socket:
    """A socket for the address of ``getaddrinfo``; PrivateAddressError unless it is public.

    As aiohttp's `socket_factory` it sees the address of every connection: of a redirect, of a URL
    without a name, and of a name that is resolved anew.
    """
    family, kind, protocol, _, address = address_info
    if not is_public(address[0]):
        raise PrivateAddressError("not a public address")
    return socket.socket(family, kind, protocol)


def is_public(address: str) -> bool:
    """Whether an IP address is a host's on the internet, also where another one stands for it."""
    return all(map(_is_public, _meant(ip_address(address.partition("%")[0]))))


def _meant(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """The address that is connected to in the end, and others that it names."""
    if isinstance(address, IPv6Address):
        if any(address in network for network in _TRANSLATED):
            yield IPv4Address(int(address) & 0xFFFFFFFF)
            return
        if address.sixtofour:
            yield address.sixtofour
        if address.teredo:
            yield from address.teredo
    yield address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not address.is_multicast and address not in _RELAYS
