"""Connections to public addresses only, whatever a name resolves to or a server redirects to."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

_UNICAST = IPv6Network("2000::/3")
# IPv6 addresses that end in the IPv4 address to which they lead.
_TRANSLATED = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
# Relays of 6to4: the registry calls them globally reachable, but they are no hosts.
_RELAYS = IPv4Network("192.88.99.0/24")


class PrivateAddressError(OSError):
    """A connection was refused because its address is not public."""


def public_socket(address_info: tuple[Any, ...]) -> socket.socket:
    """A socket for an address of ``getaddrinfo``; PrivateAddressError unless it is public.

    As aiohttp's `socket_factory` it sees the address of every connection: also those of a redirect, of
    a URL with an address as its host, and of a name that is resolved again.
    """
    family, kind, protocol, _, address = address_info
    if not is_public(address[0]):
        raise PrivateAddressError("not a public address")
    return socket.socket(family, kind, protocol)


def is_public(address: str) -> bool:
    """Whether an IP address, and every address embedded in it, is that of a host on the internet."""
    return all(map(_is_public, _reached(ip_address(address.partition("%")[0]))))


def _reached(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """The address that a connection reaches, and others embedded in it."""
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
