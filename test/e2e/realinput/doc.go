// Package realinput runs clusters against what they meet in the field: Kamailio
// and sipp as SIP servers, memcached, FreeSWITCH's event socket as it was
// recorded, and input that is hostile on purpose. Every server is a process of
// its own, in the lab's namespaces.
//
// Judged is from outside: by a phone's answers, by ARP and by the kernel's
// address events. The agents' own word counts only for what they counted and
// for the events an operator reads.
package realinput
