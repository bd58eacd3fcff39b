package config

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	defActionTimeout = 5 * time.Second
	maxActionTimeout = time.Hour
	maxRetries       = 100
)

// actions reads the [[….action]] tables of a VIP or a role.
func actions(t *table) []Action {
	var out []Action
	for _, e := range t.tables("action") {
		out = append(out, action(e, phases))
	}
	return out
}

// clusterActions reads the [[action]] tables.
func clusterActions(t *table) (out []Action) {
	for _, e := range t.tables("action") {
		a := action(e, []Phase{Flush})
		if len(a.When) > 0 {
			e.fail("when", "when: a flush has no cause; leave it out")
		}
		out = append(out, a)
	}
	return out
}

func action(t *table, phases []Phase) Action {
	defer t.done()
	a := Action{On: t.phase(phases)}
	a.Exec = t.texts("exec", `["/etc/sipalive/hooks/takeover", "--vip", "vip1"]`)
	a.User = t.user("user")
	a.FreeSWITCH = t.texts("freeswitch", `["sofia profile vip1 recover"]`)
	a.Memcached = t.texts("memcached", `["127.0.0.1:11211"]`)
	a.HTTP = t.url("http")
	a.SecretFile = t.optionalPath("secret_file", "/etc/sipalive/hook.secret")
	if a.SecretFile != "" && !t.has("http") {
		t.fail("secret_file", "secret_file: only an http action is signed with it")
	}
	a.Timeout = t.duration("timeout", defActionTimeout, minInterval, maxActionTimeout)
	a.Retries = t.number("retries", 0, 0, maxRetries)
	a.OnFailure = OnFailure(t.oneOf("on_failure", string(OnFailureContinue), string(OnFailureContinue), string(OnFailureRelease)))
	if a.OnFailure == OnFailureRelease && a.On != Prepare && a.On != Acquire {
		t.fail("on_failure", "on_failure = \"release\": nothing to give back on %s; only for prepare and acquire", a.On)
	}
	a.When = t.causes()
	t.oneOfVerbs("action", "exec", "freeswitch", "memcached", "http")
	t.checkExec(a.Exec)
	t.checkCommands(a.FreeSWITCH)
	for i, address := range a.Memcached {
		if err := badEndpoint(address); err != "" {
			t.failItem("memcached", i, "memcached: %q: %s, e.g. \"127.0.0.1:11211\"", address, err)
		}
	}
	return a
}

func (t *table) phase(phases []Phase) Phase {
	if !t.has("on") {
		t.get("on")
		t.d.absent(t.at.line, "on is missing %s; %s", t.where, oneOfThem(phases))
		return phases[0]
	}
	s := t.text("on", string(phases[0]), string(phases[0]))
	if slices.Contains(phases, Phase(s)) {
		return Phase(s)
	}
	t.fail("on", "on = %q: must be %s", s, quoted(phases, " or "))
	return phases[0]
}

// oneOfThem lists the allowed words for a message.
func oneOfThem[T ~string](words []T) string {
	if len(words) == 1 {
		return "it is " + quoted(words, "")
	}
	return "one of " + quoted(words, ", ")
}

// causes reads the list of causes for which an action runs.
func (t *table) causes() (out []Cause) {
	known := []Cause{CauseMove, CauseCrash, CauseSIP, CauseBoot}
	for i, s := range t.texts("when", `["crash", "sip"]`) {
		c := Cause(s)
		switch {
		case !slices.Contains(known, c):
			t.failItem("when", i, "when: %q is no cause; they are %s", s, quoted(known, ", "))
		case slices.Contains(out, c):
			t.failItem("when", i, "when: %q is named twice; leave one out", s)
		}
		out = append(out, c)
	}
	return out
}

// quoted lists words as the file spells them, with last before the last word.
func quoted[T ~string](words []T, last string) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(last)
		default:
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(string(w)))
	}
	return b.String()
}

// oneOfVerbs requires exactly one of the verbs, with something to do.
func (t *table) oneOfVerbs(what string, verbs ...string) {
	var given []string
	for _, verb := range verbs {
		if !t.has(verb) {
			continue
		}
		given = append(given, verb)
		list, isList := t.values[verb].([]any)
		if isList && len(list) == 0 || t.values[verb] == "" {
			t.fail(verb, "%s is empty; say what to do or leave the %s out", verb, what)
		}
	}
	switch len(given) {
	case 0:
		t.d.absent(t.at.line, "the %s says no verb; give it %s or %s", what, strings.Join(verbs[:len(verbs)-1], ", "), verbs[len(verbs)-1])
	case 1:
	default:
		second := given[1]
		if t.line(given[0]) > t.line(second) {
			second = given[0]
		}
		t.fail(second, "the %s has %d verbs, %s; give each its own %s, in order",
			what, len(given), strings.Join(given, " and "), strings.TrimPrefix(t.where, "in "))
	}
}

// user is a user name as useradd allows it; "" means the agent's own user.
func (t *table) user(key string) string {
	s := t.text(key, "", "nobody")
	odd := func(r rune) bool { return !isNameRune(r) }
	switch {
	case len(s) > 32 || strings.HasPrefix(s, "-") || strings.ContainsFunc(s, odd):
		t.fail(key, "%s = %q: not a user name; e.g. \"nobody\", or \"\" for the agent's own", key, s)
	case s != "" && !t.has("exec"):
		t.fail(key, "%s = %q: only an exec action runs as a user", key, s)
	}
	return s
}

func (t *table) checkExec(argv []string) {
	if len(argv) > 0 && !filepath.IsAbs(argv[0]) {
		t.failItem("exec", 0, "exec: %q is not an absolute path; there is no shell and no PATH, e.g. \"/usr/bin/systemctl\"", argv[0])
	}
	for i, arg := range argv {
		if strings.ContainsRune(arg, 0) {
			t.failItem("exec", i, "exec: element %d holds a NUL byte, which no argument can; leave it out", i+1)
		}
	}
}

// checkCommands requires each command to be one line that is not blank: the event socket
// ends a command at a blank line.
func (t *table) checkCommands(commands []string) {
	for i, c := range commands {
		switch {
		case strings.ContainsFunc(c, isControl):
			t.failItem("freeswitch", i, "freeswitch: command %d holds a line break or control character; give each command its own element", i+1)
		case strings.TrimSpace(c) == "":
			t.failItem("freeswitch", i, "freeswitch: command %d is blank; leave it out", i+1)
		}
	}
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// failItem blames one element of an array.
func (t *table) failItem(key string, i int, format string, args ...any) {
	t.d.fail(t.at.key(key).item(i).line, format, args...)
}
