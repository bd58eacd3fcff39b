// Package realinput runs clusters with what they meet in the field: Kamailio and SIPp as
// SIP servers, memcached, FreeSWITCH's event socket as it was recorded, and deliberately
// hostile input. Every server is a separate process in the lab's namespaces.
//
// The tests judge from outside: by a phone's answers, by ARP, and by the kernel's address
// events. An agent's own report counts only for its counters and for the events that an
// operator reads.
package realinput
