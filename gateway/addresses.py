"""As whom a client's address counts, wherever something is limited per address."""

from ipaddress import IPv6Address, ip_address


def network_of(host: str) -> str:
    """Return an IPv4 address as it is, or the /64 network that one IPv6 customer has."""
    if ":" not in host:
        return host
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
    return host
