package keepalived

// The reasons why a setting of the file has no equivalent, by its keyword.

const announcements = "announcements go out at once, after 0.1, 1.1, 2.2 and 4.4 s, and every announce.refresh; that one can be set, and announce.limit, how many frames leave in a second"

const noPriorities = "there are no priorities to add it to: a node whose check fails is unfit and hands its VIPs over"

const balancing = "sipalive balances no load: keep IPVS with another tool, or let a SIP proxy do it"

const routes = "sipalive moves addresses, not routes and rules: set them up for good (a route may be there before its address), or in an acquire action"

var topReasons = map[string]string{
	"virtual_server":       balancing,
	"virtual_server_group": balancing,
	"real_server":          balancing,
	"static_ipaddress":     "an address that does not move belongs into the system's network configuration",
	"static_routes":        "a route that does not move belongs into the system's network configuration",
	"static_rules":         "a rule that does not move belongs into the system's network configuration",
	"vrrp_track_process":   "a dead PBX is noticed by OPTIONS and by its socket; for another process write a [[check]]",
	"vrrp_track_file":      "write a [[check]] that reads the file and exits with 2",
	"track_file":           "write a [[check]] that reads the file and exits with 2",
	"bfd_instance":         "heartbeats go every 200ms and a lease ends after 1s; timing makes both shorter",
	"net_namespace":        "start the agent in its network namespace with the unit's NetworkNamespacePath=",
	"garp_group":           announcements,
	"include":              "not read: put that file's text in its place, or import it apart",
	"includer":             "not read: put that file's text in its place, or import it apart",
	"includem":             "not read: put that file's text in its place, or import it apart",
	"includew":             "not read: put that file's text in its place, or import it apart",
	"linkbeat_use_polling": "the kernel says when a link loses its carrier",
}

var globalReasons = map[string]string{
	"smtp_connect_timeout": "handing in a mail is bounded by sipalive itself",
	"smtp_helo_name":       "the node's host name is said",
	"vrrp_version":         "there is one protocol",
	"vrrp_strict":          "there is one protocol, and it is strict",
	"vrrp_mcast_group4":    "heartbeats are unicast and encrypted",
	"vrrp_mcast_group6":    "heartbeats are unicast and encrypted",
	"lvs_sync_daemon":      balancing,
	"vrrp_priority":        "the unit sets the agent's realtime priority",
	"vrrp_rt_priority":     "the unit sets the agent's realtime priority",
	"vrrp_no_swap":         "the agent locks its memory",
	"enable_dbus":          "the control socket takes its place: sipalive status --json",
	"notify_fifo":          "sipalive events --follow --json takes its place",
	"vrrp_notify_fifo":     "sipalive events --follow --json takes its place",
	"vrrp_iptables":        "the fence in the kernel takes its place, and needs no rules",
	"use_symlink_paths":    "every directory on the way to a program is judged",
	"process_names":        "the agent has one process",
}

var scriptReasons = map[string]string{
	"user":      "a check runs as the agent's own user, without its capabilities",
	"init_fail": "a check says nothing until it has run once",
}

var instanceReasons = map[string]string{
	"virtual_router_id":          "clusters are told apart by their name and their key",
	"authentication":             "the key file takes its place: heartbeats are encrypted, a PASS crossed the network in clear text",
	"use_vmac":                   "the address is announced with the interface's own MAC",
	"vmac_xmit_base":             "the address is announced with the interface's own MAC",
	"use_ipvlan":                 "the address is bound to the interface itself",
	"version":                    "there is one protocol",
	"native_ipv6":                "heartbeats go to the nodes' addresses",
	"accept":                     "the holder always accepts packets to its VIPs",
	"no_accept":                  "the holder always accepts packets to its VIPs",
	"strict_mode":                "there is one protocol, and it is strict",
	"virtual_routes":             routes,
	"virtual_rules":              routes,
	"track_process":              "a dead PBX is noticed by OPTIONS and by its socket; for another process write a [[check]]",
	"track_file":                 "write a [[check]] that reads the file and exits with 2",
	"track_bfd":                  "heartbeats go every 200ms and a lease ends after 1s; timing makes both shorter",
	"dont_track_primary":         "a VIP whose interface is down cannot be held, and is released at once",
	"lvs_sync_daemon_interface":  balancing,
	"lvs_sync_daemon_inteface":   balancing,
	"promote_secondaries":        "a VIP is bound as /32, so nothing is deleted with it",
	"linkbeat_use_polling":       "the kernel says when a link loses its carrier",
	"debug":                      "the journal has every takeover with its timeline: sipalive events",
	"higher_prio_send_advert":    "there are no priorities",
	"kernel_rx_buf_size":         "the agent sizes its sockets itself",
	"notify_master_rx_lower_pri": "a holder answers no lower one: two holders there never are",
	"skip_check_adv_addr":        "packets that do not come from the sender's address are always dropped",
	"down_timer_adverts":         "timing.lease takes its place",
	"thread_timer_expired":       "timing.lease takes its place",
}

var groupReasons = map[string]string{
	"global_tracking":            "a [[check]] is about the whole node",
	"track_interface":            "move it into the vrrp_instance and import again",
	"track_script":               "move it into the vrrp_instance and import again",
	"track_file":                 "write a [[check]] that reads the file and exits with 2",
	"track_process":              "a dead PBX is noticed by OPTIONS and by its socket; for another process write a [[check]]",
	"track_bfd":                  "heartbeats go every 200ms and a lease ends after 1s; timing makes both shorter",
	"sync_group_tracking_weight": "there are no priorities to add it to",
}
