// Package platform is what only Linux has: the boot clock, systemd, capabilities,
// the lock of one agent per node, and what netlink tells about interfaces.
package platform
