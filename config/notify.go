package config

import (
	"net/url"
	"slices"
	"strings"
)

// notify reads one [[notify]].
func notify(t *table) Notify {
	defer t.done()
	n := Notify{
		Events: t.notices(),
		Mail:   t.texts("mail", `["noc@example.net"]`),
		HTTP:   t.url("http"),
		Exec:   t.texts("exec", `["/etc/sipalive/hooks/tell"]`),
	}
	for i, to := range n.Mail {
		if !isMailAddress(to) {
			t.failItem("mail", i, "mail: %q is not an address, e.g. \"noc@example.net\"", to)
		}
	}
	t.checkExec(n.Exec)
	t.oneOfVerbs("notify", "mail", "http", "exec")
	return n
}

func (t *table) notices() (out []Notice) {
	const example = `["takeover", "vacant"]`
	for i, s := range t.texts("events", example) {
		n := Notice(s)
		switch {
		case !slices.Contains(notices, n):
			t.failItem("events", i, "events: %q is no event; they are %s", s, quoted(notices, ", "))
		case slices.Contains(out, n):
			t.failItem("events", i, "events: %q is named twice; leave one out", s)
		}
		out = append(out, n)
	}
	if !t.has("events") {
		t.d.absent(t.at.line, "events is missing %s; e.g. events = %s", t.where, example)
	} else if list, is := t.values["events"].([]any); is && len(list) == 0 {
		t.fail("events", "events is empty; e.g. events = %s", example)
	}
	return out
}

func mailSection(t *table) Mail {
	defer t.done()
	m := Mail{
		Server:       t.endpoint("server", "127.0.0.1:25"),
		TLS:          MailTLS(t.oneOf("tls", string(MailTLSOpportunistic), string(MailTLSNone), string(MailTLSOpportunistic), string(MailTLSRequired))),
		User:         t.text("user", "", "sipalive"),
		PasswordFile: t.optionalPath("password_file", "/etc/sipalive/mail.password"),
		From:         t.text("from", "sipalive@localhost", "sipalive@localhost"),
	}
	if strings.ContainsFunc(m.User, isControl) {
		t.fail("user", "user = %q: a name without control characters is needed", m.User)
	}
	if !isMailAddress(m.From) {
		t.fail("from", "from = %q: not an address, e.g. \"sipalive@localhost\"", m.From)
	}
	if (m.User == "") != (m.PasswordFile == "") && t.good("user", "password_file") {
		key := "user"
		if m.User == "" {
			key = "password_file"
		}
		t.fail(key, "user and password_file of [mail] go together; give both or neither")
	}
	return m
}

// isMailAddress accepts a bare local@domain, as an envelope needs it.
func isMailAddress(s string) bool {
	local, domain, found := strings.Cut(s, "@")
	odd := func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("<>()[],;:\\\"@", r) }
	return found && local != "" && domain != "" && len(s) <= 254 && !strings.ContainsFunc(local, odd) && !strings.ContainsFunc(domain, odd)
}

// url reads an http or https URL; "" means none.
func (t *table) url(key string) string {
	s := t.text(key, "", "https://example.net/hook")
	if s == "" {
		return s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.ContainsFunc(s, isControl):
		t.fail(key, "%s = %q: not a URL, e.g. \"https://example.net/hook\"", key, s)
	case u.User != nil:
		t.fail(key, "%s: a URL holds no password here; the body is signed with secret_file", key)
	}
	return s
}
