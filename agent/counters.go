package agent

// countersNow returns the counters of every room, under the names that metrics use.
func (a *Agent) countersNow() map[string]uint64 {
	c := map[string]uint64{
		"loop_steps": a.stats.steps.Load(), "loop_packets_dropped": a.stats.dropped.Load(),
		"loop_slowest_step_us": uint64(a.stats.slowestStep.Load() / 1000), "loop_latest_wakeup_us": uint64(max(a.stats.latestWakeUp.Load(), 0) / 1000),
		"loop_send_errors": a.stats.sendErrors.Load(), "store_errors": a.stats.storeErrors.Load(), "records_lost": a.stats.recordsLost.Load(),
	}
	c["fence_dropped_in"], c["fence_dropped_out"] = a.Fence.Drops()
	c["fence_errors"] = a.stats.fenceErrors.Load()
	a.addNetworkCounters(c)
	a.addWatchCounters(c)
	a.phones.addPhoneCounters(c)
	a.timelines.addTimelineCounters(c)
	all := a.vipTargets.now()
	for _, p := range a.probes.all() {
		all = append(all, p.Prober)
	}
	for _, p := range all {
		s := p.Stats()
		c["sip_sent"] += s.Sent
		c["sip_send_errors"] += s.SendErrors
		c["sip_answered"] += s.Answered
		c["sip_refused"] += s.Refused
		c["sip_timeouts"] += s.Timeouts
		c["sip_malformed"] += s.Malformed
		c["sip_late"] += s.Late
	}
	return c
}

func (a *Agent) addNetworkCounters(c map[string]uint64) {
	n := a.network.Counters()
	for name, v := range map[string]uint64{
		"member_relayed": n.Relayed, "member_relay_errors": n.RelayErrors,
		"member_sent": n.Sent, "member_send_errors": n.SendErrors, "member_received": n.Received, "member_accepted": n.Accepted,
		"member_garbage": n.Garbage, "member_wrong_label": n.WrongLabel, "member_wrong_key": n.WrongKey, "member_wrong_source": n.WrongSource,
		"member_unknown_sender": n.UnknownSender, "member_misdirected": n.Misdirected, "member_duplicate": n.Duplicate,
		"member_replayed": n.Replayed, "member_stale_instance": n.StaleInstance, "member_unproven": n.Unproven,
		"member_self": n.Self, "member_hellos": n.Hellos, "member_keys": n.Keys, "member_keys_dropped": n.KeysDropped, "member_gossip": n.Gossip, "member_gossip_dropped": n.GossipDropped,
		"member_receive_errors": n.ReceiveErrors, "member_streams_refused": n.StreamsRefused,
		"member_joins": n.Joins, "member_joins_failed": n.JoinsFailed, "member_gossip_errors": n.GossipErrors,
	} {
		c[name] = v
	}
}
