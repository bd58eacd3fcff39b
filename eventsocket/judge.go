package eventsocket

import "strings"

// failures are the beginnings of lines with which FreeSWITCH says no; many have no -ERR.
// They come from recordings of 1.11.1 (package recorded) or, if marked "read", from
// reading mod_sofia.c.
var failures = []string{
	"-ERR",
	"-USAGE",
	"Usage:", // read
	"Invalid Profile",
	"Invalid Args!",    // read
	"Invalid Syntax!",  // read
	"Invalid Gateway!", // read, also with a small g
	"No gateway name",  // read
	"Unknown Command",
	"Failure starting",
}

// judge returns a *Refusal with the line of an API answer that says the command failed,
// nil if no line does. "No sessions to recover." is not a failure.
func judge(text string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, begin := range failures {
			if len(line) >= len(begin) && strings.EqualFold(line[:len(begin)], begin) {
				return &Refusal{oneLine(line)}
			}
		}
		tooYoung := strings.HasPrefix(line, "Profile ") && strings.Contains(line, "must be up for at least")
		if tooYoung || strings.HasSuffix(line, "Command not found!") {
			return &Refusal{oneLine(line)}
		}
	}
	return nil
}
