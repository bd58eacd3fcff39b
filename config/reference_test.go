package config

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// schemaOf reads a document and returns every key that was looked for, without tables.
func schemaOf(t *testing.T, data []byte) []string {
	t.Helper()
	var values map[string]any
	if err := toml.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	at, _ := positions(data)
	d := newDecoder(values, at)
	d.config()
	maps.DeleteFunc(d.schema, func(_, header string) bool { return header != "" })
	return slices.Sorted(maps.Keys(d.schema))
}

// flatten lists the keys in a document; elements of lists of tables have no index.
func flatten(prefix string, values map[string]any, into map[string]bool) {
	for key, v := range values {
		switch v := v.(type) {
		case map[string]any:
			flatten(prefix+key+".", v, into)
			continue
		case []any:
			if len(v) > 0 {
				if _, tables := v[0].(map[string]any); tables {
					for _, item := range v {
						flatten(prefix+key+".", item.(map[string]any), into)
					}
					continue
				}
			}
		}
		into[prefix+key] = true
	}
}

// The comments by which reference.toml describes keys in words.
const (
	targetKeysComment = "# interval, timeout, fall, rise, unhealthy_codes: as in [sip]"
	roleActionComment = "# e.g. as in [[vip.action]]"
	clusterComment    = "# e.g. cluster-wide, on every node; as in [[vip.action]]"
)

func TestReferenceHasEveryKeyOfTheSchemaAndNoOther(t *testing.T) {
	var values map[string]any
	if err := toml.Unmarshal(Reference(), &values); err != nil {
		t.Fatal(err)
	}
	given := make(map[string]bool)
	flatten("", values, given)
	if !strings.Contains(string(Reference()), targetKeysComment) {
		t.Fatalf("reference.toml no longer says %q", targetKeysComment)
	}
	for key := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(targetKeysComment, "# "), ": as in [sip]"), ", ") {
		given["sip.target."+key] = true
	}
	for _, comment := range []string{roleActionComment, clusterComment} {
		if !strings.Contains(string(Reference()), comment) {
			t.Fatalf("reference.toml no longer says %q", comment)
		}
	}
	for key := range maps.Clone(given) {
		if leaf, is := strings.CutPrefix(key, "vip.action."); is {
			given["role.action."+leaf] = true
			given["action."+leaf] = true
		}
	}
	want := schemaOf(t, Reference())
	for _, key := range want {
		if !given[key] {
			t.Errorf("%s is read but not in reference.toml", key)
		}
		delete(given, key)
	}
	for key := range given {
		t.Errorf("%s is in reference.toml but not read", key)
	}
}

// lineOf finds the first line that sets a key of the schema.
func lineOf(p *position, path string) int {
	head, rest, more := strings.Cut(path, ".")
	if len(p.items) > 0 {
		for _, item := range p.items {
			if n := lineOf(item, path); n > 0 {
				return n
			}
		}
		return 0
	}
	k := p.keys[head]
	if k == nil {
		return 0
	}
	if !more {
		return k.line
	}
	return lineOf(k, rest)
}

// withLine returns the reference with one line replaced; "" removes the line.
func withLine(n int, text string) []byte {
	lines := strings.Split(string(Reference()), "\n")
	if text == "" {
		lines = slices.Delete(lines, n-1, n)
	} else {
		lines[n-1] = text
	}
	return []byte(strings.Join(lines, "\n"))
}

func mustParse(t *testing.T, data []byte) *Config {
	t.Helper()
	c, err := Parse("f.toml", data)
	if err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	return c
}

// Each value in reference.toml is the default, so leaving it out changes nothing. The
// exceptions are the examples named here.
func TestEveryDefault(t *testing.T) {
	needed := []string{"cluster", "key_file", "node.name", "node.address", "vip.name", "vip.address",
		"role.name", "check.name", "check.exec", "vip.action.on", "vip.action.exec", "vip.action.freeswitch", "vip.action.memcached",
		"vip.action.http", "role.action.on", "role.action.exec", "action.on", "action.memcached",
		"notify.events", "notify.mail", "notify.http", "notify.exec"}
	examples := []string{"vip.prefer"}
	want := mustParse(t, Reference()).Digest()
	at, _ := positions(Reference())
	for _, key := range schemaOf(t, Reference()) {
		line := lineOf(at, key)
		if line == 0 {
			continue // only in a comment; TestEveryKeyMatters covers it
		}
		got, err := Parse("f.toml", withLine(line, ""))
		switch {
		case slices.Contains(needed, key):
			if err == nil {
				t.Errorf("%s left out: accepted", key)
			}
		case err != nil:
			t.Errorf("%s left out: %v", key, err)
		case slices.Contains(examples, key):
			if got.Digest() == want {
				t.Errorf("%s left out: changes nothing, so it is no example", key)
			}
		case got.Digest() != want:
			t.Errorf("%s left out: not the default", key)
		}
	}
}

// Every key can be given another value, and that value changes the digest. A new key
// fails this test until it is listed here.
func TestEveryKeyMatters(t *testing.T) {
	other := map[string]string{
		"cluster": `"other"`, "key_file": `"/other"`, "port": "7000", "fence": `"bpf"`, "failback": `"auto"`, "survivor": `"always"`, "timing.survivor_after": `"5s"`,
		"timing.heartbeat": `"100ms"`, "timing.lease": `"2s"`, "timing.hold_down": `"1s"`, "timing.settle": `"1s"`,
		"timing.stagger": `"1s"`, "timing.failback_after": `"1s"`, "timing.exclude": `"1s"`,
		"node.name": "", "node.address": `"192.0.2.99"`, "node.address2": `"198.51.100.1"`,
		"node.voter": "", "node.holder": "", "node.capacity": "2",
		"sip.self_interval": `"1s"`, "sip.peer_interval": `"2s"`, "sip.timeout": `"1s"`, "sip.fall": "1", "sip.rise": "1",
		"sip.unhealthy_codes": "[503]", "sip.user_agent": `"other"`, "sip.verify": "false", "sip.verify_timeout": `"1s"`,
		"sip.tls_verify": "false", "sip.tls_ca": `"/other"`,
		"sip.target.name": `"other"`, "sip.target.uri": `"tcp:5060"`, "sip.target.on": "",
		"sip.target.interval": `"3s"`, "sip.target.timeout": `"3s"`, "sip.target.fall": "5", "sip.target.rise": "5",
		"sip.target.unhealthy_codes": "[404]",
		"freeswitch.address":         `"127.0.0.1:8022"`, "freeswitch.password_file": `"/other"`, "freeswitch.ready_check": "true",
		"check.name": `"other"`, "check.exec": `["/other"]`, "check.interval": `"9s"`, "check.timeout": `"1s"`, "check.fall": "1",
		"vip.name": `"other"`, "vip.address": `"192.0.2.102"`, "vip.interface": `"eth1"`, "vip.prefer": "[]",
		"vip.weight": "2", "vip.gateway": `"192.0.2.254"`, "vip.announce": "false",
		"vip.action.on": `"release"`, "vip.action.exec": `["/other"]`, "vip.action.freeswitch": `["status"]`,
		"vip.action.memcached": `["127.0.0.1:11212"]`, "vip.action.timeout": `"1s"`,
		"vip.action.retries": "2", "vip.action.user": `"nobody"`,
		"vip.action.http": `"http://other/"`, "vip.action.secret_file": `"/other"`, "vip.action.on_failure": `"release"`, "vip.action.when": `["crash"]`,
		"role.name": `"other"`, "role.prefer": `["pbx1"]`,
		"role.action.on": `"prepare"`, "role.action.exec": `["/other"]`, "role.action.freeswitch": "",
		"role.action.memcached": "", "role.action.http": "", "role.action.secret_file": "", "role.action.timeout": `"1s"`,
		"action.on": "", "action.exec": "", "action.user": "", "action.freeswitch": "", "action.memcached": `["127.0.0.1:11212"]`, "action.http": "",
		"action.secret_file": "", "action.timeout": `"1s"`, "action.retries": "2", "action.on_failure": "", "action.when": "",
		"notify.events": `["takeover"]`, "notify.mail": `["other@example.net"]`, "notify.http": `"http://other/"`, "notify.exec": `["/other"]`,
		"mail.server": `"127.0.0.1:26"`, "mail.tls": `"none"`, "mail.user": "", "mail.password_file": "", "mail.from": `"a@b"`,
		"role.action.retries": "2", "role.action.user": `"nobody"`, "role.action.on_failure": `"release"`, "role.action.when": `["crash"]`,
		"announce.refresh": `"10s"`, "announce.limit": "10", "control.group": `"other"`, "control.listen": `"127.0.0.1:9480"`, "control.public": "true",
	}
	// These have no second value that is valid in the reference itself.
	elsewhere := map[string][2]string{
		"node.name":              {`name      = "pbx1"`, `name      = "other"`},
		"node.voter":             {"voter     = true", "voter     = false"},
		"node.holder":            {"holder    = true", "holder    = false"},
		"role.action.freeswitch": {`exec = ["/usr/bin/systemctl", "start", "cdr-import"]`, `freeswitch = ["status"]`},
		"role.action.memcached":  {`exec = ["/usr/bin/systemctl", "start", "cdr-import"]`, `memcached = ["localhost:1"]`},
		"role.action.http":       {`exec = ["/usr/bin/systemctl", "start", "cdr-import"]`, `http = "http://other/"`},
		"role.action.secret_file": {`exec = ["/usr/bin/systemctl", "start", "cdr-import"]`,
			"http = \"http://other/\"\nsecret_file = \"/other\""},
		"mail.user":          {"user          = \"\"\npassword_file = \"\"", "user          = \"a\"\npassword_file = \"/b\""},
		"mail.password_file": {"user          = \"\"\npassword_file = \"\"", "user          = \"a\"\npassword_file = \"/c\""},
		// The reader is that of [[vip.action]]. These have only one value, or need
		// another verb.
		"action.on": {}, "action.on_failure": {}, "action.when": {},
		"action.exec":        {"memcached = [\"127.0.0.1:11211\"]\n\n", "exec = [\"/other\"]\n\n"},
		"action.user":        {"memcached = [\"127.0.0.1:11211\"]\n\n", "exec = [\"/other\"]\nuser = \"a\"\n\n"},
		"action.freeswitch":  {"memcached = [\"127.0.0.1:11211\"]\n\n", "freeswitch = [\"flush\"]\n\n"},
		"action.http":        {"memcached = [\"127.0.0.1:11211\"]\n\n", "http = \"http://a/\"\n\n"},
		"action.secret_file": {"memcached = [\"127.0.0.1:11211\"]\n\n", "http = \"http://a/\"\nsecret_file = \"/a\"\n\n"},
		"sip.target.on":      {"on    = \"node\"", "on    = \"node\"\n[[sip.target]]\nname = \"vip\"\non = \"vip1\""},
	}
	second := "\n[[node]]\nname = \"pbx9\"\naddress = \"192.0.2.19\"\n"
	reference := strings.Replace(string(Reference()), `prefer    = ["pbx1"]`, "prefer    = []", 1) + second
	at, _ := positions(Reference())
	onLine := lineOf(at, "sip.target.on")
	for _, key := range schemaOf(t, Reference()) {
		value, known := other[key]
		delete(other, key)
		swap, isElsewhere := elsewhere[key]
		_, leaf := cutLast(key)
		var before, after []byte
		switch line := lineOf(at, key); {
		case !known:
			t.Errorf("%s: say what another value would be", key)
			continue
		case isElsewhere && swap[0] == "":
			continue
		case isElsewhere:
			before, after = []byte(reference), []byte(strings.Replace(reference, swap[0], swap[1], 1))
		case line == 0 && strings.HasPrefix(key, "sip.target."):
			before, after = Reference(), withLine(onLine, leaf+" = "+value)
		case line == 0 && strings.HasPrefix(key, "action."):
			before = Reference()
			after = []byte(strings.Replace(string(before), "on        = \"flush\"\n", "on        = \"flush\"\n"+leaf+" = "+value+"\n", 1))
		case line == 0:
			before = Reference()
			after = append(Reference(), []byte("\n")...)
			after = []byte(strings.Replace(string(after), roleActionComment+"\n", roleActionComment+"\n"+leaf+" = "+value+"\n", 1))
		default:
			before, after = Reference(), withLine(line, leaf+" = "+value)
		}
		if mustParse(t, before).Digest() == mustParse(t, after).Digest() {
			t.Errorf("%s: another value changes nothing", key)
		}
	}
	for key := range other {
		t.Errorf("%s is tested but no key of the schema", key)
	}
}
