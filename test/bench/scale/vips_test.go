package scale

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/bench/page"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// taken is when the VIPs of a silent host were taken over: the first, the median and the
// last one.
type taken struct{ first, median, last time.Duration }

// BenchmarkVIPs: all VIPs are on one host, which falls silent, and the two others take
// them. Times count from the cut, so they include the lease of 1 s.
func BenchmarkVIPs(b *testing.B) {
	header := []string{"vips", "run", "at", "load", "first_ms", "median_ms", "last_ms", "cpu_holder_percent", "cpu_other_percent", "frames_holder_per_s", "bytes_holder_per_s", "rss_mb"}
	var rows, table [][]string
	for _, vips := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("vips=%d", vips), func(b *testing.B) {
			all, steady := manyVIPs(b, vips)
			for i, t := range all {
				rows = append(rows, []string{fmt.Sprint(vips), fmt.Sprint(i + 1), stamp(), load(b), ms(t.first), ms(t.median), ms(t.last),
					fmt.Sprintf("%.2f", steady[0].cpu), fmt.Sprintf("%.2f", steady[1].cpu), fmt.Sprintf("%.0f", steady[0].frames), fmt.Sprintf("%.0f", steady[0].bytes), fmt.Sprintf("%.1f", steady[0].mb)})
			}
			slices.SortFunc(all, func(a, b taken) int { return int(a.last - b.last) })
			m, w := all[len(all)/2], all[len(all)-1]
			table = append(table, []string{fmt.Sprint(vips), ms(m.first), ms(m.median), "**" + ms(m.last) + "**", ms(w.last),
				fmt.Sprintf("%.2f %%", steady[0].cpu), fmt.Sprintf("%.2f %%", steady[1].cpu), fmt.Sprintf("%.0f", steady[0].frames), fmt.Sprintf("%.1f kB", steady[0].bytes/1000), fmt.Sprintf("%.1f MB", steady[0].mb)})
			b.ReportMetric(float64(m.last)/1e6, "ms-last")
			b.ReportMetric(0, "ns/op")
		})
	}
	publish(b, "scale-vips", header, rows, page.Table([]string{"VIPs", "first answers, ms", "median VIP", "**last**", "last, worst run",
		"CPU of the holder", "of another", "frames/s of the holder", "bytes/s", "RSS"}, table))
}

func manyVIPs(b *testing.B, vips int) (all []taken, steady []cost) {
	c := start(b, cluster.Options{VIPs: vips, VIPNet: netip.MustParsePrefix("10.77.2.0/23"), Home: func(int) int { return 0 },
		TOML: "[timing]\nhold_down = \"0s\"\n"})
	home(b, c)
	steady = costs(b, c)
	p := newPhone(b, c.Phone())
	for range *runs {
		home(b, c)
		p.until(b, c.VIPs, patience) // so that the router knows them all, as with real phones
		at := lab.Now()
		must(b, c.Cut(c.Node(0)))
		first := p.until(b, c.VIPs, patience)
		all = append(all, summary(first, at))
		b.Logf("%d VIPs: first %s ms, last %s ms", vips, ms(all[len(all)-1].first), ms(all[len(all)-1].last))
		tellTakeovers(b, c, at)
		must(b, c.Restore(c.Node(0)))
	}
	return all, steady
}

// tellTakeovers logs what the agents report of their takeovers since a moment: the last
// time of each mark, counted from that moment.
func tellTakeovers(b *testing.B, c *cluster.Cluster, since time.Duration) {
	b.Helper()
	from := time.Now().Add(since - lab.Now())
	for i, h := range c.Nodes()[1:] {
		events, err := c.Client(i+1).Events(context.Background(), 1000)
		must(b, err)
		n, last := 0, map[string]time.Duration{}
		for _, e := range events {
			if e.Kind != control.Takeover || e.Told || e.Time.Before(from) {
				continue
			}
			n++
			for _, m := range e.Timeline {
				last[m.Mark] = max(last[m.Mark], e.Time.Sub(from)+time.Duration(m.At))
			}
		}
		b.Logf("  %s took %d: lease %s, bound %s, announced %s ms", h.Name, n, ms(last["lease"]), ms(last["bound"]), ms(last["announced"]))
	}
}

func summary(first map[netip.Addr]time.Duration, at time.Duration) taken {
	var took []time.Duration
	for _, d := range first {
		took = append(took, d-at)
	}
	slices.Sort(took)
	return taken{first: took[0], median: took[len(took)/2], last: took[len(took)-1]}
}

// home brings every VIP home, and waits until the cluster is at rest.
func home(b *testing.B, c *cluster.Cluster) {
	b.Helper()
	await(b, "the VIPs at home", func(ctx context.Context) error {
		if err := atRest(ctx, c); err != nil {
			return err
		}
		st, err := c.Client(1).Status(ctx)
		if err != nil {
			return err
		}
		for _, v := range st.VIPs {
			if v.Holder != c.Node(0).Name {
				_, err := c.Client(1).Do(ctx, control.Command{Kind: control.Failback})
				return fmt.Errorf("%s is at %s, told to go home: %v", v.Name, v.Holder, err)
			}
		}
		return nil
	})
}
