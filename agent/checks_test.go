package agent

import "testing"

// TestCheckVerdict: a check speaks against a node only after fall times unfit in a row.
// Unknown says nothing for or against.
func TestCheckVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		words []string
		down  []bool
	}{
		"fall in a row":              {[]string{"unfit", "unfit", "unfit", "unfit"}, []bool{false, false, true, true}},
		"one good begins anew":       {[]string{"unfit", "unfit", "ok", "unfit", "unfit"}, []bool{false, false, false, false, false}},
		"a warning is fit":           {[]string{"unfit", "unfit", "warn", "unfit"}, []bool{false, false, false, false}},
		"unknown keeps a verdict":    {[]string{"unfit", "unfit", "unfit", "unknown", "ok"}, []bool{false, false, true, true, false}},
		"unknown is none":            {[]string{"unknown", "unknown", "unknown", "unknown"}, []bool{false, false, false, false}},
		"unknown between counts not": {[]string{"unfit", "unknown", "unfit", "unfit"}, []bool{false, false, false, true}},
		"paused is no sickness":      {[]string{"unfit", "unfit", "unfit", "paused"}, []bool{false, false, true, false}},
	} {
		check, was := &check{fall: 3}, false
		for i, w := range c.words {
			changed := check.note(w, "text")
			if check.down != c.down[i] || changed != (check.down != was) {
				t.Errorf("%s: after %v: down %v, changed %v", name, c.words[:i+1], check.down, changed)
			}
			was = check.down
		}
	}
}

// TestCheckAgrees: if another node's check said no first, one no is enough. Both nodes
// ask the same database, each at its own moments.
func TestCheckAgrees(t *testing.T) {
	for _, bad := range []int{0, 1, 2, 3} {
		for next, down := range map[string]bool{checkOK: false, checkUnknown: bad >= 2, checkUnfit: true} {
			c := &check{fall: 3}
			for range bad {
				c.note(checkUnfit, "")
			}
			if c.agree("no"); !c.down || c.text != "no" {
				t.Errorf("after %d: down %v, %q", bad, c.down, c.text)
			}
			if c.note(next, ""); c.down != down {
				t.Errorf("after %d and one that agrees, then %s: down %v", bad, next, c.down)
			}
		}
	}
}
