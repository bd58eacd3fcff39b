// Package platform holds what only Linux has: the boot clock, systemd, capabilities, the
// lock that allows one agent per node, and netlink's view of interfaces.
package platform
