//! Namespaces, addresses and links by netlink, the keeper, running commands.
