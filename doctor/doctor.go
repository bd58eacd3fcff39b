// Package doctor judges whether a machine is fit to be a node: facts in, findings
// out. It asks nobody and knows no clock; `sipalive doctor` gathers the facts, each
// in one place, and shows what this room concludes of them.
package doctor

// Level is how bad a Finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warning Level = "warning" // it works, not as well or not as safely as it could
	Error   Level = "error"   // a promise of the cluster does not hold, or the agent cannot start
)

// Finding is one line of the report.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Do    string `json:"do,omitempty"` // what to do; never empty but for OK
}

func fine(text string) Finding { return Finding{Level: OK, Text: text} }

func warn(text, do string) Finding { return Finding{Level: Warning, Text: text, Do: do} }

func bad(text, do string) Finding { return Finding{Level: Error, Text: text, Do: do} }

// check is one question. What it asks of is nil where it could not be gathered:
// then it has nothing to say, and another check says why.
type check struct {
	name  string
	judge func(*Facts) []Finding
}

// checks are all, in the order of the report: each stands on those before it.
var checks = []check{
	{"file", file},
	{"key", key},
	{"node", node},
	{"interface", interfaces},
	{"address", addresses},
	{"agent", agent},
	{"capabilities", capabilities},
	{"fence", fence},
	{"clock", clock},
	{"realtime", realtime},
	{"port", ports},
	{"firewall", firewall},
	{"drift", drift},
	{"relay", relay},
	{"router", router},
	{"sip", sip},
	{"eventsocket", eventSocket},
	{"nonlocal", nonlocal},
	{"freeswitch", traps},
	{"keepers", keepers},
}

// Examine judges all facts. The order is that of the checks.
func Examine(f *Facts) (all []Finding) {
	for _, c := range checks {
		for _, found := range c.judge(f) {
			found.Check = c.name
			all = append(all, found)
		}
	}
	return all
}

// Worst is the highest level of all.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if f.Level == Error || worst == OK {
			worst = f.Level
		}
	}
	return worst
}
