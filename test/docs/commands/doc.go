// Package commands runs the commands of the pages that operators read, in a cluster of
// the lab and in a copy of this machine's file system. It has only tests.
package commands
