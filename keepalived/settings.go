package keepalived

import (
	"slices"
	"strings"
	"time"
)

func (s *site) timing(c *cluster) {
	manual := false
	for _, in := range s.instances {
		if in.advert > 0 && in.advert < slowAdvert {
			if lease := max(minLease, perAdvert*in.advert); c.lease == 0 || lease < c.lease {
				c.lease = lease
			}
		}
		c.failback = c.failback || in.preempts
		manual = manual || !in.preempts
		c.after = max(c.after, in.preemptDelay)
	}
	if c.failback && manual {
		for _, in := range s.instances {
			if !in.preempts {
				s.note(in.line, "nopreempt of "+in.name, "failback is one setting for all VIPs, and other instances preempt")
			}
		}
	}
	if s.refresh > 0 {
		c.refresh = min(max(s.refresh, time.Second), time.Hour)
	}
}

// people finds out who gets mail.
func (s *site) people(c *cluster) {
	if len(s.mail) == 0 {
		return
	}
	if !s.smtpAlert {
		s.note(0, "notification_email", "no smtp_alert for a vrrp_instance: nobody was told; add a [[notify]] to tell them")
		return
	}
	for _, to := range s.mail {
		if to = mailbox(to); to == "" {
			s.note(0, "a notification_email", "not an address")
		} else if !slices.Contains(c.mail, to) {
			c.mail = append(c.mail, to)
		}
	}
	c.from = mailbox(s.mailFrom)
	if isEndpoint(s.mailServer) {
		c.server = s.mailServer
	} else if s.mailServer != "" {
		s.note(0, "smtp_server "+s.mailServer, "no host and port")
	}
}

// mailbox returns an address with a domain, or "" if to cannot be made one.
func mailbox(to string) string {
	if to != "" && !strings.Contains(to, "@") {
		to += "@localhost"
	}
	local, domain, _ := strings.Cut(to, "@")
	odd := func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("<>()[],;:\\\"@", r) }
	if local == "" || domain == "" || len(to) > 254 || strings.ContainsFunc(local, odd) || strings.ContainsFunc(domain, odd) {
		return ""
	}
	return to
}
