// Package doctor judges whether a machine is fit to be a node: facts in, findings out. It
// does no I/O and has no clock. `sipalive doctor` gathers the facts, each in one place,
// and prints the findings.
package doctor

// Level is how bad a Finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warning Level = "warning" // it works, but not as well or as safely as it could
	Error   Level = "error"   // a promise of the cluster is broken, or the agent cannot start
)

// Finding is one line of the report.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Do    string `json:"do,omitempty"` // what to do about it; empty only for OK
}

func fine(text string) Finding { return Finding{Level: OK, Text: text} }

func warn(text, do string) Finding { return Finding{Level: Warning, Text: text, Do: do} }

func bad(text, do string) Finding { return Finding{Level: Error, Text: text, Do: do} }

// check is one question about the machine. If its facts could not be gathered they are
// nil; then the check says nothing, and another check says why.
type check struct {
	name  string
	judge func(*Facts) []Finding
}

// checks lists all checks in the order of the report. Each relies on those before it.
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

// Examine runs all checks on the facts and returns the findings in the order of checks.
func Examine(f *Facts) (all []Finding) {
	for _, c := range checks {
		for _, found := range c.judge(f) {
			found.Check = c.name
			all = append(all, found)
		}
	}
	return all
}

// Worst returns the highest level among the findings.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if f.Level == Error || worst == OK {
			worst = f.Level
		}
	}
	return worst
}
