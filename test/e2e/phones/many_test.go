package phones

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sipalive/test/lab"
)

// TestThousandPhones: neither telling the other nodes about a thousand phones nor the
// phones' return disturbs anything. The return is spread over a second.
func TestThousandPhones(t *testing.T) {
	s := start(t)
	const many = 1000
	k := &kind{name: "of a thousand", n: many, from: s.Phone().Addr}
	all := map[*kind][]*phone{k: s.phones(k)}
	before, used := s.counters(0), s.cpu(0)
	const span = 3 * time.Second // long enough for one whole round
	<-time.After(span)
	used = s.cpu(0) - used
	now := s.counters(0)
	t.Logf("the holder of %d: %.1f %% of a core, %.0f packets a second, slowest step %d µs (%d before), latest wake-up %d µs", many,
		100*float64(used)/float64(span), float64(now["member_sent"]-before["member_sent"])/span.Seconds(),
		now["loop_slowest_step_us"], before["loop_slowest_step_us"], now["loop_latest_wakeup_us"])
	if told := now["phones_shared"] - before["phones_shared"]; told < many {
		t.Errorf("%d told of in %v, want all", told, span)
	}
	for v := range s.VIPs {
		if h := s.holder(v); h != "pbx1" {
			t.Errorf("vip%d is at %s, and nobody moved it", v+1, h)
		}
	}

	died := lab.Now()
	s.must(s.Cut(s.Node(0)))
	taken := s.held(0, "pbx1")
	t.Logf("taken over %v after the host died", (taken - died).Round(time.Millisecond))
	s.back(all, died, []time.Duration{taken})
	for i := 1; i < 3; i++ {
		c := s.counters(i)
		t.Logf("%s: woken %d, refused %d, latest wake-up %d µs", s.Node(i).Name, c["phones_woken"], c["phones_refused"], c["loop_latest_wakeup_us"])
		if c["phones_refused"]+c["phones_wake_errors"] > 0 {
			t.Errorf("%s: %d phones refused, %d keepalives could not be sent", s.Node(i).Name, c["phones_refused"], c["phones_wake_errors"])
		}
	}
}

// cpu returns how much processor time a node's agent has used.
func (s *site) cpu(i int) time.Duration {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Agent(i).Pid))
	s.must(err)
	var user, system int // 14th and 15th field, in hundredths of a second
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	s.must(err)
	return time.Duration(user+system) * 10 * time.Millisecond
}
