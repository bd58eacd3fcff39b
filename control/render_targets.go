package control

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// certificateSoon is how long before its end a certificate is reported.
const certificateSoon = 14 * 24 * time.Hour

// unusualTargets reports what an operator should know about SIP listeners besides their
// verdict: slow answers and certificates that end soon.
func unusualTargets(where string, targets []TargetStatus) (lines []string) {
	for _, t := range targets {
		// Not the median: it would show a peer's brown-out only after a minute.
		if t.P90 > t.Timeout/2 && t.Timeout > 0 {
			lines = append(lines, fmt.Sprintf("%s %s answers slowly: one answer in ten takes %v or more, after %v it counts as silent",
				where, t.Name, t.P90.text(), t.Timeout.text()))
		}
		switch {
		case t.CertificateProblem != "":
			lines = append(lines, fmt.Sprintf("%s %s: %s", where, t.Name, t.CertificateProblem))
		case t.CertificateEnds != nil && time.Until(t.CertificateEnds.Time) < certificateSoon:
			lines = append(lines, fmt.Sprintf("%s %s: its certificate ends %s", where, t.Name, t.CertificateEnds.UTC().Format(tableTime)))
		}
	}
	return lines
}

// against returns the nodes whose probes speak against this node's PBX.
func (n NodeStatus) against() (who []string) {
	for _, v := range n.Views {
		if v.SIP == "silent" || v.SIP == "refused" {
			who = append(who, v.From)
		}
	}
	return who
}

func (st Status) targetTable() *table {
	t := &table{}
	t.add("SIP", "TARGET", "URI", "STATE", "ANSWER", "MEDIAN", "P99", "SEEN BY")
	for _, n := range st.Nodes {
		for i, s := range n.Targets {
			seen := ""
			if i == 0 {
				seen = n.seenBy()
			}
			t.add(append(s.row(n.Name), seen)...)
		}
	}
	for _, v := range st.VIPs {
		for _, s := range v.Targets {
			t.add(append(s.row(v.Name), "")...)
		}
	}
	return t
}

// seenBy returns every node's view in short: "pbx1 up, pbx2 silent".
func (n NodeStatus) seenBy() string {
	var words []string
	for _, v := range n.Views {
		words = append(words, v.From+" "+v.SIP)
	}
	return strings.Join(words, ", ")
}

func (t TargetStatus) row(where string) []string {
	answer, median, p99 := "", "", ""
	if t.Code != 0 {
		answer = strings.TrimSpace(strconv.Itoa(t.Code) + " " + t.Phrase)
	}
	if t.Answers > 0 {
		median, p99 = t.Median.text(), t.P99.text()
	}
	return []string{where, t.Name, t.URI, t.State, answer, median, p99}
}

func (m Millis) text() string { return fmt.Sprintf("%.1f ms", float64(m)/float64(time.Millisecond)) }

func (m Millis) round() time.Duration { return time.Duration(m).Round(time.Second) }
