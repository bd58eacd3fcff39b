package control

import "strings"

// metrics are all metrics that are read from a status.
var metrics = []metric{
	one("sipalive_quorum", "1: this node hears a majority of the voters.", func(st Status) float64 { return bit(st.Quorum) }),
	one("sipalive_all_unfit", "1: no node is fit, so nobody moves.", func(st Status) float64 { return bit(st.AllUnfit) }),
	one("sipalive_sockets_unwatched", "1: the kernel's notices of dying sockets do not come, so a killed PBX is noticed by the next probe.", func(st Status) float64 { return bit(st.SocketsUnwatched != "") }),
	one("sipalive_quiet", "1: restarted without its grants, this voter grants nothing yet.", func(st Status) float64 { return bit(st.Quiet) }),
	one("sipalive_fence_weak", "1: the fence does not hold the promise of one holder, or not everywhere.", func(st Status) float64 { return bit(st.FenceWeak) }),
	one("sipalive_voter_list_waiting", "1: the file's voter list is not taken yet.", func(st Status) float64 { return bit(st.Waiting != "") }),
	one("sipalive_key_rotation", "1: a key rotation has not ended everywhere.", func(st Status) float64 { return bit(len(st.KeyRotation) > 0) }),
	one("sipalive_lease_seconds", "How long a lease is granted for.", func(st Status) float64 { return st.Lease.seconds() }),
	one("sipalive_memory_locked", "1: the agent's pages stay in memory.", func(st Status) float64 { return bit(st.MemoryLocked) }),
	one("sipalive_realtime", "1: the agent runs under a realtime scheduling policy.", func(st Status) float64 {
		return bit(strings.HasPrefix(st.Scheduling, "rr") || strings.HasPrefix(st.Scheduling, "fifo"))
	}),

	perNode("sipalive_node_alive", "1: this node hears it, or is it.", func(n NodeStatus) float64 { return bit(n.Alive) }),
	perNode("sipalive_node_fit", "1: it can serve calls.", func(n NodeStatus) float64 { return bit(n.Fit) }),
	perNode("sipalive_node_witness", "1: it votes and holds no VIP, so it is never fit.", func(n NodeStatus) float64 { return bit(n.Witness) }),
	perNode("sipalive_node_drained", "1: drained.", func(n NodeStatus) float64 { return bit(n.Drained) }),
	perNode("sipalive_node_held_down", "1: it came back lately and ranks last.", func(n NodeStatus) float64 { return bit(n.HeldDown) }),
	perNode("sipalive_node_config_differs", "1: it runs another configuration than this node.", func(n NodeStatus) float64 { return bit(n.ConfigDiffers) }),
	perNode("sipalive_node_unknown_key", "1: it speaks with a key that this node has not.", func(n NodeStatus) float64 { return bit(n.UnknownKey) }),
	perNode("sipalive_node_frozen_seconds", "For how long still no SIP verdict takes a VIP from it.", func(n NodeStatus) float64 { return n.FrozenFor.seconds() }),
	{name: "sipalive_node_sip_up", help: "1: the observer's probes of the node's PBX speak for it.", labels: []string{"node", "observer"},
		read: func(st Status, tell func(float64, ...string)) {
			for _, n := range st.Nodes {
				for _, v := range n.Views {
					if v.SIP != "unknown" {
						tell(bit(v.SIP == "up" || v.SIP == "suspect" || v.SIP == "rising"), n.Name, v.From)
					}
				}
			}
		}},
	{name: "sipalive_check_unfit", help: "1: this check makes this node unfit.", labels: []string{"check"},
		read: func(st Status, tell func(float64, ...string)) {
			for _, n := range st.Nodes {
				for _, c := range n.Checks {
					tell(bit(c.Unfit), c.Name)
				}
			}
		}},

	perTarget("sipalive_target_up", "1: this node's own probes of the SIP listener speak for it.", nil,
		func(t TargetStatus, tell func(float64, ...string)) {
			if t.State != "unknown" {
				tell(bit(t.State == "up"))
			}
		}),
	perTarget("sipalive_target_round_trip_seconds", "Of the last 128 answers of a SIP listener: median, p90, p99, max.", []string{"of"},
		func(t TargetStatus, tell func(float64, ...string)) {
			if t.Answers > 0 {
				tell(t.Median.seconds(), "median")
				tell(t.P90.seconds(), "p90")
				tell(t.P99.seconds(), "p99")
				tell(t.Max.seconds(), "max")
			}
		}),
	perTarget("sipalive_target_certificate_expiry_timestamp_seconds", "When a SIP listener's certificate ends.", nil,
		func(t TargetStatus, tell func(float64, ...string)) {
			if t.CertificateEnds != nil {
				tell(float64(t.CertificateEnds.Unix()))
			}
		}),

	perVIP("sipalive_vip_held", "1: somebody holds it, as this node sees it.", func(_ Status, v VIPStatus) (float64, bool) { return bit(v.Holder != ""), true }),
	perVIP("sipalive_vip_held_here", "1: this node holds it.", func(st Status, v VIPStatus) (float64, bool) { return bit(v.Holder == st.Node), true }),
	perVIP("sipalive_vip_survivor", "1: its holder has no majority behind it.", func(_ Status, v VIPStatus) (float64, bool) { return bit(v.State == "survivor"), true }),
	perVIP("sipalive_vip_away", "1: another node than the first in prefer holds it.", func(_ Status, v VIPStatus) (float64, bool) { return bit(v.AwayFrom != ""), true }),
	perVIP("sipalive_vip_verified", "1: it answered SIP at its holder; absent where that is not asked or not known yet.", func(_ Status, v VIPStatus) (float64, bool) {
		return bit(v.Verified), v.Holder != "" && !v.Unchecked
	}),
	perVIP("sipalive_vip_router_proven", "1: the router reaches it at its holder; absent where that cannot be told.", func(_ Status, v VIPStatus) (float64, bool) {
		return bit(v.Router == "proven"), v.Router == "proven" || v.Router == "unproven"
	}),
	perVIP("sipalive_vip_epoch", "The number of its last acquisition.", func(_ Status, v VIPStatus) (float64, bool) { return float64(v.Epoch), true }),
	perVIP("sipalive_vip_since_timestamp_seconds", "Since when its holder holds it.", func(_ Status, v VIPStatus) (float64, bool) {
		return float64(v.Since.Unix()), !v.Since.IsZero()
	}),
	perRole("sipalive_role_held", "1: somebody holds the role, as this node sees it.", func(_ Status, r RoleStatus) float64 { return bit(r.Holder != "") }),
	perRole("sipalive_role_held_here", "1: this node holds the role.", func(st Status, r RoleStatus) float64 { return bit(r.Holder == st.Node) }),
	perRole("sipalive_role_epoch", "The number of its last acquisition.", func(_ Status, r RoleStatus) float64 { return float64(r.Epoch) }),

	counter("loop_steps", "sipalive_loop_steps_total", "Steps of the agent's loop."),
	counter("loop_packets_dropped", "sipalive_loop_packets_dropped_total", "Messages that found the loop's queue full."),
	counter("loop_send_errors", "sipalive_loop_send_errors_total", "Messages that could not be sent."),
	worst("loop_slowest_step_us", "sipalive_loop_slowest_step_seconds", "The slowest step since the agent started."),
	worst("loop_latest_wakeup_us", "sipalive_loop_latest_wakeup_seconds", "The latest wake-up past its deadline since the agent started."),
	counter("store_errors", "sipalive_store_errors_total", "Records that the runtime directory refused."),
	counter("records_lost", "sipalive_records_lost_total", "Facts the log was too slow for."),
	counter("fence_dropped_in", "sipalive_fence_dropped_in_total", "Packets to a VIP that the fence dropped."),
	counter("fence_dropped_out", "sipalive_fence_dropped_out_total", "Packets from a VIP that the fence dropped."),
	counter("fence_errors", "sipalive_fence_errors_total", "Deadlines that the kernel would not take."),
	counter("arp_announced", "sipalive_arp_announced_total", "Announcements sent, by ARP and neighbour discovery."),
	counter("arp_announce_errors", "sipalive_arp_announce_errors_total", "Announcements that could not be sent."),
	counter("arp_pings", "sipalive_arp_pings_total", "Pings to the router from a VIP held here."),
	counter("arp_pings_answered", "sipalive_arp_pings_answered_total", "Pings to the router that it answered."),
	counter("arp_pings_detoured", "sipalive_arp_pings_detoured_total", "Answers to such pings that another machine passed on."),
	counter("arp_gateway_asked", "sipalive_arp_gateway_asked_total", "Requests that have the router look at its table anew."),
	counter("arp_rival_claims", "sipalive_arp_rival_claims_total", "Packets of other machines that claim a VIP held here."),
	counter("arp_defences", "sipalive_arp_defences_total", "Announcements that defended a VIP."),
	counter("arp_owner_asked", "sipalive_arp_owner_asked_total", "Questions on the network who has a VIP, before it is held without a majority."),
	counter("gateway_relayed", "sipalive_gateway_relayed_total", "Packets for other nodes sent by way of the gateway."),
	counter("gateway_relay_errors", "sipalive_gateway_relay_errors_total", "Packets by way of the gateway that could not be sent."),
	counter("phones_shared", "sipalive_phones_shared_total", "TCP connections of phones told to the other nodes, again in every round."),
	counter("phones_refused", "sipalive_phones_refused_total", "TCP connections in another node's word that no phone can have, or for which there was no room."),
	counter("phones_woken", "sipalive_phones_woken_total", "Keepalives and resets for phones whose connection the last holder had, those without numbers included."),
	counter("phones_wake_errors", "sipalive_phones_wake_errors_total", "Such keepalives that could not be sent."),
	counter("timelines_told", "sipalive_timelines_told_total", "Timelines of takeovers here that the other nodes were told of, repetitions included."),
	counter("timelines_heard", "sipalive_timelines_heard_total", "Takeovers of other nodes that they told of."),
	counter("timelines_refused", "sipalive_timelines_refused_total", "Timelines of other nodes that are of no tenure seen here, cannot be so, or came too fast."),
	counter("control_requests", "sipalive_control_requests_total", "Requests at the control socket."),
	counter("control_refused", "sipalive_control_refused_total", "Requests at the control socket that were malformed, too large or too much."),

	counter("sip_sent", "sipalive_sip_sent_total", "Probes sent, repetitions included."),
	counter("sip_send_errors", "sipalive_sip_send_errors_total", "Probes that could not be sent."),
	counter("sip_answered", "sipalive_sip_answered_total", "Probes answered."),
	counter("sip_refused", "sipalive_sip_refused_total", "Probes whose port refused them."),
	counter("sip_timeouts", "sipalive_sip_timeouts_total", "Probes without an answer in time."),
	counter("sip_malformed", "sipalive_sip_malformed_total", "Answers that are no SIP."),
	counter("sip_late", "sipalive_sip_late_total", "Answers that came too late."),

	counter("member_sent", "sipalive_member_sent_total", "Messages sent to other agents."),
	counter("member_send_errors", "sipalive_member_send_errors_total", "Messages to other agents that could not be sent."),
	counter("member_received", "sipalive_member_received_total", "Packets received at the agents' port."),
	counter("member_accepted", "sipalive_member_accepted_total", "Messages accepted: authentic, fresh, for this node."),
	counter("member_garbage", "sipalive_member_garbage_total", "Packets dropped: no message of ours."),
	counter("member_wrong_label", "sipalive_member_wrong_label_total", "Packets dropped: another cluster's."),
	counter("member_wrong_key", "sipalive_member_wrong_key_total", "Packets dropped: sealed with another key, or forged."),
	counter("member_wrong_source", "sipalive_member_wrong_source_total", "Packets dropped: not from their sender's configured address."),
	counter("member_unknown_sender", "sipalive_member_unknown_sender_total", "Packets dropped: no configured node."),
	counter("member_misdirected", "sipalive_member_misdirected_total", "Packets dropped: for another node."),
	counter("member_duplicate", "sipalive_member_duplicate_total", "Packets dropped: the other path's copy."),
	counter("member_replayed", "sipalive_member_replayed_total", "Packets dropped: too old a number."),
	counter("member_stale_instance", "sipalive_member_stale_instance_total", "Packets dropped: of an agent's earlier life."),
	counter("member_unproven", "sipalive_member_unproven_total", "Packets dropped: an agent's new life, not proven fresh yet."),
	counter("member_self", "sipalive_member_self_total", "Packets dropped: our own."),
	counter("member_hellos", "sipalive_member_hellos_total", "Greetings, which exchange nonces."),
	counter("member_keys", "sipalive_member_keys_total", "Messages about keys."),
	counter("member_keys_dropped", "sipalive_member_keys_dropped_total", "Questions about keys dropped: too many, or played back."),
	counter("member_gossip", "sipalive_member_gossip_total", "Packets of gossip."),
	counter("member_gossip_dropped", "sipalive_member_gossip_dropped_total", "Packets of gossip dropped."),
	counter("member_gossip_errors", "sipalive_member_gossip_errors_total", "Complaints of the gossip library."),
	counter("member_relayed", "sipalive_member_relayed_total", "Messages handed on for the way through the gateway."),
	counter("member_relay_errors", "sipalive_member_relay_errors_total", "Messages that this way did not take."),
	counter("member_receive_errors", "sipalive_member_receive_errors_total", "Failed reads at the agents' port."),
	counter("member_streams_refused", "sipalive_member_streams_refused_total", "Connections at the agents' port that were refused."),
	counter("member_joins", "sipalive_member_joins_total", "Times that gossip was joined."),
	counter("member_joins_failed", "sipalive_member_joins_failed_total", "Times that joining gossip failed."),
}
